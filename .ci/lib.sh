# shellcheck shell=sh disable=SC2034 # who sources it uses what is set here
# lib.sh - sourced by .ci/run and .ci/long: steps, their count, their builds
#
# A step is one test. Its output goes to build/ci/NAME.log, its build, if it
# has one of its own, to build/NAME: two below the sources, as the one that
# distcheck makes within build/plain, so that the compiler is given the same
# names of files everywhere and ccache knows what it has compiled before.
set -u
cd "$(dirname "$0")/.." || exit 1
top=$PWD
ci=$top/build/ci
plain=$top/build/plain # the build that the test suite runs in
CI=true
export CI
passed=0 failed=0 skipped=0 failures=''

jobs=$(nproc 2>/dev/null || echo 2)

# Seconds of processors that all ended children have taken, in $cpu. (In a
# command substitution, times would tell that subshell's.)
count_cpu()
{
    times >"$ci/times"
    cpu=$(tail -n 1 "$ci/times" | tr 'ms' '  ' |
        awk '{ printf "%d\n", $1 * 60 + $2 + $3 * 60 + $4 }')
}

start_clock()
{
    count_cpu
    from=$(date +%s) cpu_from=$cpu
}

# What has gone by since, in $took.
stop_clock()
{
    count_cpu
    took="$(($(date +%s) - from)) s, CPU $((cpu - cpu_from)) s"
}

# wanted NAME: whether the step is among those that were asked for, if any were.
wanted()
{
    case " ${only:-$1} " in
    *" $1 "*) ;;
    *) return 1 ;;
    esac
}

# step NAME COMMAND...: exit status 77 means skipped, and the last line why.
step()
{
    wanted "$1" || return
    name=$1
    shift
    start_clock
    "$@" >"$ci/$name.log" 2>&1 </dev/null
    rc=$?
    stop_clock
    case $rc in
    0)
        passed=$((passed + 1))
        echo "PASS $name ($took)"
        ;;
    77)
        skipped=$((skipped + 1))
        echo "SKIP $name: $(tail -n 1 "$ci/$name.log")"
        ;;
    *)
        failed=$((failed + 1))
        failures="$failures $name"
        echo "FAIL $name ($took), $ci/$name.log ends:"
        tail -n 40 "$ci/$name.log" | sed 's/^/   | /'
        ;;
    esac
}

# The count, and what is left to say.
finish()
{
    [ -z "$failures" ] || echo "Failed:$failures"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}

# What sluice needs, what the checks need, and what makes them faster, which
# may be missing.
prepare()
{
    ./quickstart --yes install ci || exit 1
    mkdir -p "$ci/bin" || exit 1
    if ! command -v ccache >/dev/null; then
        ./quickstart --yes install cache
    fi
    if command -v ccache >/dev/null; then
        for name in cc c++ gcc g++ clang clang++; do
            ln -sf "$(command -v ccache)" "$ci/bin/$name"
        done
        PATH=$ci/bin:$PATH
        CCACHE_DIR=$ci/ccache CCACHE_BASEDIR=$top CCACHE_NOHASHDIR=1
        CCACHE_MAXSIZE=2G
        export PATH CCACHE_DIR CCACHE_BASEDIR CCACHE_NOHASHDIR CCACHE_MAXSIZE
    fi
    # Nobody debugs these builds: -g takes an eighth of the compiler's time.
    CFLAGS="-O2 -g0" CXXFLAGS="-O2 -g0"
    export CFLAGS CXXFLAGS
    # No terminal looks at a release that only distcheck unpacks.
    XZ_OPT=-1
    export XZ_OPT
    [ -f configure ] && [ -z "$(find configure.ac -newer configure)" ] ||
        ./autogen.sh >"$ci/autogen.log" 2>&1 || exit 1
}

# fresh NAME: no build of an older commit is left (make would ask for sources
# that were renamed since; what has not changed, ccache has). A distcheck that
# was stopped leaves folders that cannot be written.
fresh()
{
    [ ! -d "$top/build/$1" ] || chmod -R u+w "$top/build/$1"
    rm -rf "$top/build/$1"
}

# configured NAME ARGUMENT...: goes to the fresh build folder of that name.
configured()
{
    fresh "$1"
    mkdir -p "$top/build/$1" && cd "$top/build/$1" || return
    shift
    "$top/configure" -q "$@"
}

# built_by_nvcc ARGUMENT...: goes to a build with its kernels; 77: there is none.
built_by_nvcc()
{
    configured nvcc "$@" || return
    if ! grep -q 'define HAVE_CUDA' config.h; then
        echo "there is no nvcc here"
        return 77
    fi
    make -j"$jobs" libk_cuda.a sluice && ./sluice --version
}

# A build with clang's sanitizers: checks cost less than twice the time at -O1,
# and stacks need lines alone of what -g gives.
sanitized()
{
    configured "$@" --enable-debug --with-cuda=sim CC=clang CXX=clang++ \
        CFLAGS='-O1 -gline-tables-only' CXXFLAGS='-O1 -gline-tables-only'
}

failed_tests()
{
    grep -hE '^not ok|ERROR: |WARNING: ThreadSanitizer|runtime error' \
        tests/*.log tests/*/*.log
    return 1
}

# run_tests TEST...: those of this build, without compiling the others, two
# more at a time than there are processors, since many wait for disks and for
# each other; $calm, if set, stands before the command.
run_tests()
{
    ${calm:-} make -j"$((jobs + 2))" check-TESTS check_PROGRAMS= TESTS="$*" ||
        failed_tests
}

# programs_of NAME...: the test programs whose sources have such names (with
# wildcards), in whatever room.
programs_of()
(
    cd "$top" || exit
    for name; do
        find tests -name "$name.c" -o -name "$name.cc"
    done | sed 's/\.cc*$//' | sort
)

fuzzers()
{
    programs_of 'fuzz_*'
}

# fuzz PROGRAM SECONDS: from its kept corpus and what earlier runs found.
fuzz()
{
    kind=${1#tests/fuzz_}
    corpus=$ci/corpus/$kind
    mkdir -p "$corpus"
    [ ! -d "$top/tests/corpus/$kind" ] ||
        cp -r "$top/tests/corpus/$kind/." "$corpus"
    "./$1" -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$ci/fuzz-$kind-" "$corpus" \
        >"$ci/fuzz-$kind.log" 2>&1 || {
        tail -n 40 "$ci/fuzz-$kind.log"
        return 1
    }
    tail -n 1 "$ci/fuzz-$kind.log"
}
