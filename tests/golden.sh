# shellcheck shell=sh
# golden.sh - sourced by scripts that need golden data (tests/golden/README.md)

# golden NAME: the path of a file or folder of it, beside the checkout or in it;
# fails if there is none.
golden()
{
    for golden_root in \
        "${SLUICE_SHARED:-${SLUICE_SOURCE:-.}/../shared}/golden" \
        "${SLUICE_SOURCE:-.}/tests/golden"; do
        if [ -e "$golden_root/$1" ]; then
            echo "$golden_root/$1"
            return 0
        fi
    done
    return 1
}
