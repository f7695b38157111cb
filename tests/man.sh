#!/bin/sh
# The man pages and the program agree: the commands, each option of each, and
# the examples, which are run.
#
# An example block that follows a line `.\" run` holds commands behind "$ ",
# other lines going on with the one before. They find the demo checkpoint as
# "demo" and a model file of it as "glm-tiny.gguf".
man=${SLUICE_SOURCE:-.}/man
sluice=${SLUICE:-./sluice}
unset ARGP_HELP_FMT
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-man-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
n=0

# check NAME: whether what was run before it succeeded; else shows $work/log.
check()
{
    if [ $? = 0 ]; then
        n=$((n + 1))
        echo "ok $n - $1"
    else
        n=$((n + 1))
        echo "not ok $n - $1"
        sed 's/^/# /' "$work/log"
    fi
}

commands()
{
    "$sluice" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'
}

# The options that --help lists, without those every argp program has.
helped()
{
    "$sluice" "$1" --help | awk '
        /^ +-/ {
            sub(/^ +/, "")
            sub(/  .*/, "")
            while (match($0, /--?[A-Za-z0-9?][-A-Za-z0-9_]*/)) {
                print substr($0, RSTART, RLENGTH)
                $0 = substr($0, RSTART + RLENGTH)
            }
        }' | grep -vxE -e '--(help|usage|version)|-[?hV]' | sort -u
}

# The options a page has an item for.
documented()
{
    awk '/^\.It Fl / {
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^(Fl|Ar|Op)$/)
                    name = ($i == "Fl")
                else if (name && $i != ",")
                    print "-" $i
            }
        }' "$man/sluice-$1.1" | sort -u
}

# The shell lines of a page's examples.
examples()
{
    awk '/^\.\\" run/ { wanted = 1; next }
        wanted && /^\.Bd/ { inside = 1; next }
        /^\.Ed/ { wanted = inside = 0 }
        inside { sub(/^\$ /, ""); gsub(/\\e/, "\\"); print }' "$1"
}

run_examples()
(
    examples "$1" >"$work/examples.sh"
    mkdir "$work/run" && cd "$work/run" || exit
    ln -s "$demo" demo
    grep -q -e '-o glm-tiny.gguf' "$work/examples.sh" ||
        ln -s "$work/glm-tiny.gguf" glm-tiny.gguf
    PATH=$work/bin:$PATH sh -e -u "$work/examples.sh" </dev/null
    rc=$?
    rm -rf "$work/run"
    exit $rc
)

man=$(cd "$man" && pwd) demo=$(cd "$man/../demo" && pwd)
mkdir "$work/bin"
ln -s "$(cd "$(dirname "$sluice")" && pwd)/sluice" "$work/bin/sluice"

pages=$(cd "$man" && echo sluice-*.1 | sed 's/sluice-//g; s/\.1//g')
pages_with_examples=$(grep -l '^\.\\" run' "$man"/*.1)
# shellcheck disable=SC2086 # words on purpose
echo "1..$(($(set -- $pages && echo $#) + 2 +
    $(set -- $pages_with_examples && echo $#)))"

{ commands && echo "pages: $pages"; } >"$work/log"
[ "$(commands | sort)" = "$(echo "$pages" | tr ' ' '\n' | sort)" ]
check every_command_has_a_page_and_every_page_a_command

for command in $pages; do
    helped "$command" >"$work/helped"
    documented "$command" >"$work/documented"
    { comm -23 "$work/helped" "$work/documented" | sed 's/^/only --help: /' &&
        comm -13 "$work/helped" "$work/documented" | sed 's/^/only man: /'; } \
        >"$work/log"
    "$sluice" "$command" --help | grep -q -e --usage && [ ! -s "$work/log" ]
    check "${command}_has_the_options_its_page_has"
done

"$sluice" convert "$demo" -o "$work/glm-tiny.gguf" --quant f16 \
    >"$work/log" 2>&1
check the_demo_converts
for page in $pages_with_examples; do
    run_examples "$page" >"$work/log" 2>&1
    check "the_examples_of_$(basename "$page" .1)_run"
done
