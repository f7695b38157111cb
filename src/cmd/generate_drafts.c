#include "config.h"

#include "src/cmd/generate.h"

static void sum_up(const struct sl_gate_counts *c, uint64_t *drafted,
                   uint64_t *accepted)
{
    *drafted = *accepted = 0;
    for (uint32_t i = 0; i < SL_DRAFT_SOURCES; i++) {
        *drafted += c->drafted[i];
        *accepted += c->accepted[i];
    }
}

void sl_generate_print_drafts(const struct sl_generate *g)
{
    const struct sl_gate_counts *c = &g->drafts.gate.counts;
    uint64_t drafted, accepted;

    sum_up(c, &drafted, &accepted);
    if (drafted == 0 || c->passes == 0)
        return;
    fprintf(stderr, "drafts       ");
    for (uint32_t i = 0; i < SL_DRAFT_SOURCES; i++) {
        if (c->drafted[i] > 0)
            fprintf(stderr, "%s: %llu guessed, %llu right",
                    g->drafts.sources[i].kind->name,
                    (unsigned long long)c->drafted[i],
                    (unsigned long long)c->accepted[i]);
        if (c->beside[i] > 0)
            fprintf(stderr, " (%llu and %llu beside likelier ones)",
                    (unsigned long long)c->beside[i],
                    (unsigned long long)c->beside_accepted[i]);
        if (c->ahead[i] > 0)
            fprintf(stderr, " (%llu made while passes ran, %llu of no use)",
                    (unsigned long long)c->ahead[i],
                    (unsigned long long)c->discarded[i]);
        if (c->drafted[i] > 0)
            fprintf(stderr, "; ");
    }
    fprintf(stderr, "%.2f tokens a pass, %.2f s %s\n",
            (double)c->tokens / (double)c->passes,
            c->saved_s < 0 ? -c->saved_s : c->saved_s,
            c->saved_s < 0 ? "lost" : "saved");
}

void sl_generate_drafts_json(json_t *stats, const struct sl_generate *g,
                             const struct sl_gate_counts *before,
                             const struct sl_gate_counts *after)
{
    uint64_t passes = after->passes - before->passes;
    json_t *list = json_array();

    for (uint32_t i = 0; i < SL_DRAFT_SOURCES; i++) {
        if (g->drafts.sources[i].kind == NULL)
            continue;
        json_array_append_new(
            list,
            json_pack(
                "{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "source",
                g->drafts.sources[i].kind->name, "drafted",
                (json_int_t)(after->drafted[i] - before->drafted[i]),
                "accepted",
                (json_int_t)(after->accepted[i] - before->accepted[i]),
                "beside", (json_int_t)(after->beside[i] - before->beside[i]),
                "beside_accepted",
                (json_int_t)(after->beside_accepted[i] -
                             before->beside_accepted[i]),
                "ahead", (json_int_t)(after->ahead[i] - before->ahead[i]),
                "discarded",
                (json_int_t)(after->discarded[i] - before->discarded[i])));
    }
    json_object_set_new(
        stats, "tokens_per_pass",
        json_real(passes > 0 ? (double)(after->tokens - before->tokens) /
                                   (double)passes
                             : 0));
    json_object_set_new(stats, "seconds_saved",
                        json_real(after->saved_s - before->saved_s));
    json_object_set_new(stats, "drafts", list);
}
