# shellcheck shell=sh disable=SC2154 # what the sourcing test has set
# demo_model.sh - sourced by the tests that use the demo model: they set
# source, sluice and work first; it converts the model to $model and gives
# check, and ends a test whose model cannot be made
model=$work/demo.gguf
if ! "$sluice" convert --quant f16 -o "$model" "$source/demo" \
    >"$work/convert.log" 2>&1; then
    cat "$work/convert.log"
    echo "1..1"
    echo "not ok 1 - the_demo_model_converts"
    exit 1
fi

n=0
# check NAME: passes if the last command did.
check()
{
    rc=$?
    n=$((n + 1))
    if [ $rc -eq 0 ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        [ ! -e "$work/err" ] || sed 's/^/# /' "$work/err"
    fi
}
