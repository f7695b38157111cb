#include "config.h"

#include "src/base/module_file.h"

const char *sl_module_build(void)
{
    return PACKAGE_VERSION;
}
