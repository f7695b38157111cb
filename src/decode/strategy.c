#include "config.h"

#include "src/decode/strategy.h"

const struct sl_strategy_ops *const sl_strategies[] = {
    [SL_STRATEGY_BASE] = &sl_strategy_base,
    [SL_STRATEGY_BEAM] = &sl_strategy_beam,
    NULL,
};
