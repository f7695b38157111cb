#!/bin/sh
# No variable of ours can be written unless somebody handed it over: the
# objects have nothing in .data or .bss. (Constant tables of pointers are in
# .data.rel.ro, which the loader closes before main; nm cannot tell the two
# apart, objdump can. DW.ref.* are the compiler's references to exception
# types in C++.) Left out are the simulated GPU, which has the state that a
# GPU has, and kernels for real ones: nvcc keeps handles of them in .bss.
name=no_object_has_writable_globals
if ! command -v objdump >/dev/null; then
    echo "1..0 # SKIP there is no objdump"
    exit 0
fi
if objdump -t src/cmd/main.o | grep -qE '__(asan|tsan|ubsan|sanitizer)'; then
    echo "1..0 # SKIP sanitizers add globals of their own"
    exit 0
fi
set -- src/cmd/main.o
for library in *.a; do
    case $library in
    libcudasim.a) continue ;;
    libk_cuda.a) [ -f libcudasim.a ] || continue ;;
    esac
    set -- "$@" "$library"
done
found=$(objdump -t "$@" | awk '
    /file format/ { object = $1 }
    / O (\.data|\.bss|\.tdata|\.tbss|\*COM\*)/ && !/\.data\.rel\.ro|DW\.ref\./ {
        print "# " object " " $NF }')
echo 1..1
if [ -z "$found" ]; then
    echo "ok 1 - $name"
else
    echo "not ok 1 - $name"
    echo "$found"
fi
