#!/bin/sh
# ./quickstart's installer against stand-ins for apt-get, sudo, pkg-config and
# id: what it would do on other machines, without doing it to this one.
quickstart=${SLUICE_SOURCE:-.}/quickstart
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-quickstart-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
bin=$work/bin
mkdir "$bin"
unset CI CC CXX NO_COLOR
esc=$(printf '\033')

# tool NAME: its standard input becomes a program of that name.
tool()
{
    {
        echo '#!/bin/sh'
        cat
    } >"$bin/$1"
    chmod +x "$bin/$1"
}

# A machine where libcmocka-dev is missing until apt-get is asked for it.
machine()
{
    rm -rf "$bin" "$work/calls" "$work/installed" "$work/build"
    mkdir "$bin"
    : >"$work/calls"
    for name in sh env awk sed cat grep tr tail head mkdir rm date dirname \
        printf find locale nproc true false; do
        ln -s "$(command -v $name)" "$bin/$name" 2>/dev/null
    done
    for name in make cc c++ autoreconf automake apt-cache; do
        echo 'echo yes' | tool $name
    done
    echo "[ \"\$2\" != cmocka ] || [ -e '$work/installed' ]" | tool pkg-config
    echo "echo $1" | tool id
    tool sudo <<END
echo "sudo \$*" >>'$work/calls'
while [ "\${1#-}" != "\$1" ]; do shift; done
"\$@"
END
    tool apt-get <<END
echo "apt-get \$*" >>'$work/calls'
case \$1 in install) : >'$work/installed' ;; esac
END
}

# Runs the installer on that machine: output in $out, exit status in $rc.
install()
{
    out=$(PATH=$bin "$bin/sh" "$quickstart" --build "$work/build" \
        install 2>&1 </dev/null)
    rc=$?
}

# The same on a terminal on which somebody types $1; variables for env after.
install_on_terminal()
{
    answer=$1
    shift
    out=$(echo "$answer" | script -qec "env $* TERM=xterm PATH='$bin' \
        '$bin/sh' '$quickstart' --build '$work/build' install" /dev/null 2>&1)
    rc=$?
}

n=0
# check NAME: whether what was run before it succeeded.
check()
{
    if [ $? = 0 ]; then
        n=$((n + 1))
        echo "ok $n - $1"
    else
        n=$((n + 1))
        echo "not ok $n - $1"
        echo "$out" | sed 's/^/# /'
        sed 's/^/# called: /' "$work/calls"
    fi
}

says()
{
    case $out in
    *"$1"*) ;;
    *) false ;;
    esac
}

called()
{
    grep -qE "$1" "$work/calls"
}

silent()
{
    [ ! -s "$work/calls" ]
}

echo 1..18

machine 0
install
[ $rc = 0 ] && ! called ^sudo
check root_needs_no_sudo
called 'install .* libcmocka-dev$'
check only_what_is_missing_is_installed
says 'the test programs'
check it_says_why
! called update
check package_lists_are_not_fetched_needlessly

: >"$work/calls"
install
[ $rc = 0 ] && silent
check a_second_run_installs_nothing

machine 1000
install
called '^sudo -n .*apt-get install -y'
check others_use_sudo_unasked_without_a_terminal

machine 0
echo 'true' | tool apt-cache
install
[ $rc = 0 ] && [ "$(grep -c . "$work/calls")" = 2 ] &&
     head -n 1 "$work/calls" | grep -q update
check unknown_packages_have_the_lists_fetched_first

machine 0
tool apt-get <<END
echo "apt-get \$*" >>'$work/calls'
case \$1 in
update) : >'$work/updated' ;;
install) [ -e '$work/updated' ] || exit 100; : >'$work/installed' ;;
esac
END
install
[ $rc = 0 ] && called update
check stale_lists_are_fetched_anew_and_it_tries_again

machine 0
echo 'echo "E: no route to mirror"; exit 100' | tool apt-get
install
[ $rc = 1 ] && says "no route to mirror" && says apt.log
check a_failure_shows_what_apt_said

machine 0
rm "$bin/apt-get"
install
[ $rc = 1 ] && says libcmocka-dev && says "no apt-get"
check without_apt_the_names_are_listed

machine 1000
rm "$bin/sudo"
install
[ $rc = 1 ] && says "apt-get install libcmocka-dev"
check without_sudo_the_command_is_given

machine 0
echo 'exit 1' | tool cc
install
[ $rc = 1 ] && says "still not found: build-essential"
check what_apt_could_not_mend_is_named

if command -v script >/dev/null; then
    machine 1000
    install_on_terminal n
    [ $rc = 1 ] && silent && says 'sudo? [Y/n]'
    check a_terminal_is_asked_and_no_means_no
    says "${esc}[1m"
    check a_terminal_gets_colours
    install_on_terminal y NO_COLOR=1
    [ $rc = 0 ] && called 'sudo -n env .*apt-get install -y'
    check yes_means_yes
    ! says "${esc}[1m" && ! says "${esc}[3"
    check no_colours_where_they_are_not_wanted
    machine 1000
    install_on_terminal n CI=true
    [ $rc = 0 ] && called 'apt-get install -y'
    check ci_is_not_asked
else
    for name in no yes colours no_colours ci; do
        n=$((n + 1))
        echo "ok $n - ${name}_on_a_terminal # SKIP there is no script(1)"
    done
fi

out=$("$quickstart" --nonsense 2>&1)
rc=$?
[ $rc = 2 ] && says Usage:
check an_unknown_argument_shows_the_usage
