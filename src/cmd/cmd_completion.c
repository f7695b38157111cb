#include "config.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "offload/sim_machine.h"
#include "src/cmd/command.h"
#include "src/cmd/opts.h"
#include "src/cmd/opts_list.h"
#include "src/model/quant_kind.h"
#include "src/text/chat.h"

/* What shells ask for is in the tables of options: names, whether a value
 * follows and, where the words of an option begin with a list ("auto, uring or
 * pread: ..."), which. What has names of its own is asked for them. */

enum { MOST_WORDS = 32, WORD_BYTES = 32, WHAT_BYTES = 64 };

struct words {
    char v[MOST_WORDS][WORD_BYTES];
    size_t n;
};

/* Bytes of a word that could be a value. */
static size_t word_bytes(const char *s)
{
    size_t n = 0;

    while (isalnum((unsigned char)s[n]) || s[n] == '-' || s[n] == '.')
        n++;
    return n;
}

/* Behind what is said of a value in brackets. */
static const char *skip_note(const char *doc)
{
    const char *end = strncmp(doc, " (", 2) == 0 ? strchr(doc, ')') : NULL;

    return end != NULL ? end + 1 : doc;
}

/* The values that an option's words begin with; none where they do not end in
 * "or LAST". */
static void read_values(struct words *w, const char *doc)
{
    bool last = false;

    w->n = 0;
    while (doc != NULL && w->n < MOST_WORDS) {
        size_t n = word_bytes(doc);

        if (n == 0 || n >= WORD_BYTES)
            break;
        memcpy(w->v[w->n], doc, n);
        w->v[w->n++][n] = '\0';
        if (last)
            return;
        doc = skip_note(doc + n);
        if (strncmp(doc, ", ", 2) == 0) {
            doc += 2;
        } else if (strncmp(doc, " or ", 4) == 0) {
            doc += 4;
            last = true;
        } else {
            break;
        }
    }
    w->n = 0;
}

static const char *machine_at(size_t n)
{
    const struct sl_machine_spec *m = sl_machine_spec_at(n);

    return m != NULL ? m->name : NULL;
}

static const char *template_at(size_t n)
{
    const struct sl_chat_template *t = sl_chat_template_at(n);

    return t != NULL ? t->name : NULL;
}

static const struct {
    const char *option;
    const char *(*name_at)(size_t n);
} named[] = {
    {"machine", machine_at},
    {"quant", sl_quant_name_at},
    {"quant-experts", sl_quant_name_at},
    {"template", template_at},
};

static void list_values(struct words *w, const struct argp_option *of)
{
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        const char *name;

        if (of->name == NULL || strcmp(of->name, named[i].option) != 0)
            continue;
        for (w->n = 0; w->n < MOST_WORDS; w->n++) {
            name = named[i].name_at(w->n);
            if (name == NULL)
                return;
            snprintf(w->v[w->n], WORD_BYTES, "%s", name);
        }
        return;
    }
    read_values(w, of->doc);
}

static bool takes_file(const struct argp_option *o)
{
    return o->arg != NULL &&
           (strncmp(o->arg, "FILE", 4) == 0 || strncmp(o->arg, "DIR", 3) == 0 ||
            strncmp(o->arg, "FOLDER", 6) == 0 ||
            strncmp(o->arg, "SOURCE", 6) == 0 ||
            strncmp(o->arg, "PATH", 4) == 0);
}

/* A name or a file. */
static bool takes_file_too(const struct argp_option *o)
{
    return o->arg != NULL && strstr(o->arg, "|FILE") != NULL;
}

static bool has_letter(const struct argp_option *o)
{
    return o->key > 32 && o->key < 127;
}

/* The first words of a text, without what a shell's quotes or lists would
 * take for theirs. */
static const char *what_of(char what[WHAT_BYTES], const char *doc)
{
    size_t n = 0, space = 0;

    for (; doc != NULL && *doc != '\0' && n < WHAT_BYTES - 1; doc++) {
        if (strchr("'\"[]:\\`$", *doc) != NULL)
            continue;
        if (*doc == ' ')
            space = n;
        what[n++] = *doc;
    }
    if (doc != NULL && *doc != '\0')
        n = space;
    what[n] = '\0';
    return what;
}

/* Of all commands. */
static void print_names(const char *between)
{
    for (size_t i = 0; sl_commands[i] != NULL; i++)
        printf("%s%s", i > 0 ? between : "", sl_commands[i]->name);
}

/* --- bash -------------------------------------------------------------------
 */

static void bash_name(void *opaque, const struct argp_option *o,
                      const struct argp_option *of)
{
    if (has_letter(o))
        printf(" -%c", o->key);
    if (o->name != NULL)
        printf(" --%s", o->name);
}

/* What follows an option. */
static void bash_value(void *opaque, const struct argp_option *o,
                       const struct argp_option *of)
{
    struct words w;

    if (of->arg == NULL)
        return;
    fputs("            ", stdout);
    if (o->name != NULL)
        printf("--%s", o->name);
    if (has_letter(o))
        printf("%s-%c", o->name != NULL ? "|" : "", o->key);
    list_values(&w, of);
    if (w.n == 0 || takes_file(of)) {
        fputs(takes_file(of) ? ") _sluice_files; return ;;\n" : ") return ;;\n",
              stdout);
        return;
    }
    fputs(") _sluice_words '", stdout);
    for (size_t i = 0; i < w.n; i++)
        printf("%s%s", i > 0 ? " " : "", w.v[i]);
    if (takes_file_too(of))
        fputs("'; ((${#COMPREPLY[@]})) || _sluice_files; return ;;\n", stdout);
    else
        fputs("'; return ;;\n", stdout);
}

static void print_bash(void)
{
    fputs("# bash completion of sluice, made by 'sluice completion bash'\n"
          "_sluice_words()\n{\n"
          "    mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$cur\")\n}\n"
          "_sluice_files()\n{\n"
          "    compopt -o filenames 2>/dev/null\n"
          "    mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n}\n"
          "_sluice()\n{\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev\n"
          "    prev=${COMP_WORDS[COMP_CWORD-1]}\n"
          "    COMPREPLY=()\n"
          "    if [[ $cur == = ]]; then\n"
          "        cur=\n"
          "    elif [[ $prev == = ]]; then\n"
          "        prev=${COMP_WORDS[COMP_CWORD-2]}\n"
          "    fi\n"
          "    if [[ $COMP_CWORD -eq 1 ]]; then\n"
          "        _sluice_words '",
          stdout);
    print_names(" ");
    fputs(" help --help --version'\n        return\n    fi\n"
          "    case ${COMP_WORDS[1]} in\n"
          "    help)\n        _sluice_words '",
          stdout);
    print_names(" ");
    fputs("'\n        return ;;\n", stdout);
    for (size_t i = 0; sl_commands[i] != NULL; i++) {
        const struct sl_command *c = sl_commands[i];

        printf("    %s)\n        case $prev in\n", c->name);
        sl_opts_each(c->argp, bash_value, NULL);
        fputs("        esac\n        [[ $cur != -* ]] || _sluice_words '",
              stdout);
        sl_opts_each(c->argp, bash_name, NULL);
        fputs(" --help'\n        ;;\n", stdout);
    }
    fputs("    esac\n    [[ $cur == -* ]] || _sluice_files\n}\n"
          "complete -F _sluice sluice\n",
          stdout);
}

/* --- zsh --------------------------------------------------------------------
 */

static void zsh_form(const char *dashes, const char *name, const char *equals,
                     const struct argp_option *of)
{
    char what[WHAT_BYTES];
    struct words w;

    list_values(&w, of);
    printf("            '*%s%s%s[%s]", dashes, name,
           of->arg != NULL ? equals : "", what_of(what, of->doc));
    if (of->arg != NULL)
        printf(":%s:", what_of(what, of->arg));
    if (of->arg != NULL && takes_file(of)) {
        fputs("_files", stdout);
    } else if (of->arg != NULL && w.n > 0) {
        fputs(takes_file_too(of) ? "{compadd - " : "(", stdout);
        for (size_t i = 0; i < w.n; i++)
            printf("%s%s", i > 0 ? " " : "", w.v[i]);
        fputs(takes_file_too(of) ? "; _files}" : ")", stdout);
    }
    fputs("' \\\n", stdout);
}

static void zsh_option(void *opaque, const struct argp_option *o,
                       const struct argp_option *of)
{
    char letter[2] = {(char)o->key, '\0'};

    if (has_letter(o))
        zsh_form("-", letter, "+", of);
    if (o->name != NULL)
        zsh_form("--", o->name, "=", of);
}

static void print_zsh(void)
{
    char what[WHAT_BYTES];

    fputs("#compdef sluice\n"
          "# zsh completion of sluice, made by 'sluice completion zsh'\n"
          "_sluice() {\n    local -a commands\n    commands=(\n",
          stdout);
    for (size_t i = 0; sl_commands[i] != NULL; i++)
        printf("        '%s:%s'\n", sl_commands[i]->name,
               what_of(what, sl_commands[i]->summary));
    fputs("    )\n"
          "    if (( CURRENT == 2 )); then\n"
          "        _describe command commands\n"
          "        return\n    fi\n"
          "    local command=$words[2]\n"
          "    shift words\n    (( CURRENT-- ))\n"
          "    case $command in\n"
          "    help)\n        _describe command commands\n        ;;\n",
          stdout);
    for (size_t i = 0; sl_commands[i] != NULL; i++) {
        printf("    %s)\n        _arguments -S \\\n", sl_commands[i]->name);
        sl_opts_each(sl_commands[i]->argp, zsh_option, NULL);
        fputs("            '*:file:_files'\n        ;;\n", stdout);
    }
    fputs("    esac\n}\n_sluice \"$@\"\n", stdout);
}

/* --- fish -------------------------------------------------------------------
 */

static void fish_option(void *opaque, const struct argp_option *o,
                        const struct argp_option *of)
{
    const struct sl_command *c = opaque;
    char what[WHAT_BYTES];
    struct words w;

    printf("complete -c sluice -n '__fish_seen_subcommand_from %s'", c->name);
    if (o->name != NULL)
        printf(" -l %s", o->name);
    if (has_letter(o))
        printf(" -s %c", o->key);
    list_values(&w, of);
    if (of->arg != NULL && takes_file(of)) {
        fputs(" -r -F", stdout);
    } else if (of->arg != NULL) {
        fputs(takes_file_too(of) ? " -r -F" : " -x", stdout);
        for (size_t i = 0; i < w.n; i++)
            printf("%s%s", i > 0 ? " " : " -a '", w.v[i]);
        if (w.n > 0)
            putchar('\'');
    }
    printf(" -d '%s'\n", what_of(what, of->doc));
}

static void print_fish(void)
{
    char what[WHAT_BYTES];

    fputs("# fish completion of sluice, made by 'sluice completion fish'\n"
          "complete -c sluice -n '__fish_seen_subcommand_from help' -f -a '",
          stdout);
    print_names(" ");
    fputs("'\n", stdout);
    for (size_t i = 0; sl_commands[i] != NULL; i++) {
        printf("complete -c sluice -n __fish_use_subcommand -f -a %s -d '%s'\n",
               sl_commands[i]->name, what_of(what, sl_commands[i]->summary));
        sl_opts_each(sl_commands[i]->argp, fish_option, (void *)sl_commands[i]);
    }
}

/* --- command ----------------------------------------------------------------
 */

static const struct shell {
    const char *name;
    void (*print)(void);
} shells[] = {
    {"bash", print_bash},
    {"zsh", print_zsh},
    {"fish", print_fish},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    const struct shell **shell = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        for (size_t i = 0; i < sizeof shells / sizeof *shells; i++) {
            if (*shell == NULL && strcmp(arg, shells[i].name) == 0) {
                *shell = &shells[i];
                return 0;
            }
        }
        argp_error(state, "one shell: bash, zsh or fish, not '%s'", arg);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "needs a shell: bash, zsh or fish");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    NULL,
    parse,
    "bash|zsh|fish",
    "Print what makes a shell complete sluice's commands, options and their "
    "values.",
    0,
    0,
    0,
};

static int run(int argc, char **argv)
{
    const struct shell *shell = NULL;
    int code = sl_parse_args(&argp, argc, argv, &shell);

    if (code != 0)
        return code;
    shell->print();
    return sl_finish_stdout(SL_EXIT_OK);
}

const struct sl_command sl_cmd_completion = {
    .name = "completion",
    .summary = "let a shell complete commands and options",
    .run = run,
    .argp = &argp,
};
