#include "config.h"

#include "offload/device_file.h"

const char *sl_device_file_build(void)
{
    return PACKAGE_VERSION;
}
