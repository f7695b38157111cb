#include "config.h"

#include <ctype.h>
#include <stdio.h>

#include "src/cmd/gpu_show.h"
#include "src/cmd/plan_tiers.h"

/* One letter a slab, or for several: small when they have not all the same
 * tier, of which the nearest is shown. */
static char letter_of(const struct sl_plan *p, size_t from, size_t to)
{
    enum sl_tier nearest = p->tier[from];
    bool same = true;

    for (size_t i = from; i < to; i++) {
        same &= p->tier[i] == p->tier[from];
        if (p->tier[i] > nearest)
            nearest = p->tier[i];
    }
    return (char)(same ? sl_tier_letter(nearest)
                       : tolower((unsigned char)sl_tier_letter(nearest)));
}

json_t *sl_plan_tiers_json(const struct sl_plan *p)
{
    json_t *tiers = json_array();

    for (size_t i = 0; i < p->n_slabs; i++)
        json_array_append_new(tiers, json_string(sl_tier_name(p->tier[i])));
    return tiers;
}

/* The slabs in order of use; so many of them to a character that there are
 * at most 20 lines. */
void sl_plan_tiers_print(const struct sl_plan *p)
{
    size_t step = p->n_slabs / 1400 + 1;

    printf("\nTiers (%sR resident, . streamed",
           p->at[SL_DEVICE].resident_bytes > 0 ? "V in VRAM, " : "");
    if (step > 1)
        printf(", %s some of %zu",
               p->at[SL_DEVICE].resident_bytes > 0 ? "v r" : "r", step);
    fputs("), in order of use", stdout);
    for (size_t i = 0; i < p->n_slabs; i += step) {
        size_t n = p->n_slabs - i < step ? p->n_slabs - i : step;

        if (i / step % 70 == 0)
            fputs("\n  ", stdout);
        putchar(letter_of(p, i, i + n));
    }
    putchar('\n');
}
