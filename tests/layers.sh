#!/bin/sh
# The sources keep to the layers of docs/architecture.md and to their size:
#
#     src/base -> quant -> kernels --.
#         \                          +-> src, room by room -> bench, tests
#          `----> offload ----------'
#
# An arrow reads "is included by". A room of src includes the rooms before it
# in this list and itself.
rooms='arch model text ckpt probe convert exec decode runtime sim eval serve cmd'
cd "${SLUICE_SOURCE:-.}" || exit 99

n=0
# verdict NAME WRONG: a test case; WRONG lists what breaks the rule.
verdict()
{
    n=$((n + 1))
    if [ -z "$2" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        echo "$2" | sed 's/^/# /'
    fi
}

sources()
{
    find "$@" \( -name '*.c' -o -name '*.h' -o -name '*.cc' \
        -o -name '*.cu' -o -name '*.cuh' \) -type f | LC_ALL=C sort
}

# strays FOLDER PATTERN: project includes of FOLDER's files that do not match.
strays()
{
    sources "$1" | xargs grep -nE '^#include "' /dev/null |
        grep -vE "#include \"($2|config\.h)"
}

too_long()
{
    wc -l "$@" | awk '$2 != "total" && $1 > 600 {
        print $2 ": " $1 " lines; split it by subject" }'
}

config_misplaced()
{
    awk 'FNR == 1 { n = 0 }
        /^#include/ && FILENAME ~ /c$/ && !n++ && $2 != "\"config.h\"" {
            print FILENAME ": " $2 " comes before config.h" }
        /^#include "config.h"/ && FILENAME ~ /h$/ {
            print FILENAME ": config.h in a header" }' "$@"
}

long_functions()
{
    awk '/^[{]/ { from = FNR }
        /^[}]/ && from {
            if (FNR - from > 81)
                print FILENAME ":" from ": " FNR - from - 1 " lines"
            from = 0 }' "$@"
}

loose_comments()
{
    grep -nE '(^|[^:"a-z])//|\<(TODO|FIXME|XXX)\>' "$@"
}

# Documents are named as they lie in this tree, or after the repository that
# has them ("ggml-org/ggml docs/gguf.md"), or by their address. (A comment may
# break its line between the two.)
lost_documents()
{
    # shellcheck disable=SC2016 # the dollar is for awk
    awk '{
        line = $0
        gsub(/^[ \t]*([*#]|\.\\")?[ \t]*/, "", line)
        text = last " " line
        last = line
        if (FNR == 1)
            text = line
        while (match(text, /[A-Za-z0-9_.:\/-]+\.(md|pdf|rst)/)) {
            before = substr(text, 1, RSTART - 1)
            name = substr(text, RSTART, RLENGTH)
            text = substr(text, RSTART + RLENGTH)
            if (name ~ /:\/\// || before ~ /[a-zA-Z0-9-]+\/[a-zA-Z0-9_.-]+ $/)
                continue
            if (!index(line, name))
                continue
            print FILENAME ": " name
        }
    }' "$@" | sort -u | while IFS=: read -r from name; do
        name=${name# }
        [ -f "$name" ] || [ -f "${from%/*}/$name" ] || echo "$from: $name"
    done
}

echo 1..24
verdict base_includes_base_alone "$(strays src/base src/base/)"
verdict quant_includes_base_and_quant "$(strays quant 'src/base/|quant/')"
verdict kernels_include_base_and_quant \
    "$(strays kernels 'src/base/|quant/|kernels/')"
verdict offload_includes_base_alone "$(strays offload 'src/base/|offload/')"
before='src/base/|quant/|kernels/|offload/'
for room in $rooms; do
    before="$before|src/$room/"
    verdict "${room}_includes_the_rooms_before_it" \
        "$(strays "src/$room" "$before")"
done
verdict every_room_of_src_is_in_the_list \
    "$(for room in src/*/; do
        case " base $rooms " in
        *" $(basename "$room") "*) ;;
        *) echo "$room is not in the list of rooms" ;;
        esac
    done)"

# shellcheck disable=SC2046 # no name in the tree has a blank
set -- $(sources src quant kernels offload bench tests)
verdict no_file_has_more_than_600_lines "$(too_long "$@")"
verdict config_h_comes_first_in_sources_and_in_no_header \
    "$(config_misplaced "$@")"
verdict no_function_has_more_than_80_lines "$(long_functions "$@")"
# sl_message and sl_said break lines where words end.
# shellcheck disable=SC2016 # the dollar is for awk
verdict messages_are_fitted_to_the_terminal \
    "$(sources src | xargs awk '/fprintf\(stderr|fputs\("sluice.*, stderr/ {
        from = FILENAME ":" FNR; if (!/sluice: /) getline
        if (/"sluice: /) print from ": " $0 }')"
verdict comments_are_blocks_and_nothing_waits "$(loose_comments "$@")"
# shellcheck disable=SC2046
verdict documents_that_are_named_are_in_the_tree \
    "$(lost_documents README.md quickstart configure.ac Makefile.am .ci/* "$@" \
        $(find src quant kernels offload bench demo docs man tests \
            \( -name '*.md' -o -name '*.sh' -o -name '*.py' -o -name README \
            -o -name '*.[1-8]' -o -name Makefile.inc \) -type f | sort))"
