#include "config.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "src/cmd/command.h"
#include "src/cmd/opts.h"
#include "src/cmd/opts_list.h"

/* What shells ask for is in the tables of options: names, whether a value
 * follows and, where the words of an option begin with a list ("auto, uring or
 * pread: ..."), which. */

enum { MOST_WORDS = 16, WORD_BYTES = 24, WHAT_BYTES = 64 };

struct words {
    char v[MOST_WORDS][WORD_BYTES];
    size_t n;
};

/* Bytes of a word that could be a value. */
static size_t word_bytes(const char *s)
{
    size_t n = 0;

    while (islower((unsigned char)s[n]) || isdigit((unsigned char)s[n]) ||
           s[n] == '-')
        n++;
    return n;
}

/* The values that an option's words begin with; none where they do not end in
 * "or LAST". */
static void list_values(struct words *w, const char *doc)
{
    bool last = false;

    w->n = 0;
    while (doc != NULL && w->n < MOST_WORDS) {
        size_t n = word_bytes(doc);

        if (n == 0 || n >= WORD_BYTES)
            break;
        memcpy(w->v[w->n], doc, n);
        w->v[w->n++][n] = '\0';
        doc += n;
        if (last)
            return;
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

static bool takes_file(const struct argp_option *o)
{
    return o->arg != NULL &&
           (strncmp(o->arg, "FILE", 4) == 0 || strncmp(o->arg, "DIR", 3) == 0 ||
            strncmp(o->arg, "FOLDER", 6) == 0 ||
            strncmp(o->arg, "SOURCE", 6) == 0 ||
            strncmp(o->arg, "PATH", 4) == 0);
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
    list_values(&w, of->doc);
    if (w.n == 0 || takes_file(of)) {
        fputs(takes_file(of) ? ") _sluice_files; return ;;\n" : ") return ;;\n",
              stdout);
        return;
    }
    fputs(") _sluice_words '", stdout);
    for (size_t i = 0; i < w.n; i++)
        printf("%s%s", i > 0 ? " " : "", w.v[i]);
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
    for (size_t i = 0; sl_commands[i] != NULL; i++)
        printf("%s ", sl_commands[i]->name);
    fputs("help --help --version'\n        return\n    fi\n"
          "    case ${COMP_WORDS[1]} in\n",
          stdout);
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

    list_values(&w, of->doc);
    printf("            '*%s%s%s[%s]", dashes, name,
           of->arg != NULL ? equals : "", what_of(what, of->doc));
    if (of->arg != NULL)
        printf(":%s:", what_of(what, of->arg));
    if (of->arg != NULL && takes_file(of)) {
        fputs("_files", stdout);
    } else if (of->arg != NULL && w.n > 0) {
        for (size_t i = 0; i < w.n; i++)
            printf("%s%s", i > 0 ? " " : "(", w.v[i]);
        putchar(')');
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
          "    case $command in\n",
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
    list_values(&w, of->doc);
    if (of->arg != NULL && takes_file(of)) {
        fputs(" -r -F", stdout);
    } else if (of->arg != NULL) {
        fputs(" -x", stdout);
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

    fputs("# fish completion of sluice, made by 'sluice completion fish'\n",
          stdout);
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
