#include "config.h"

#include <stddef.h>

#include "src/cmd/command.h"

const struct sl_command *const sl_commands[] = {
    &sl_cmd_convert,    &sl_cmd_chat,       &sl_cmd_generate,
    &sl_cmd_serve,      &sl_cmd_inspect,    &sl_cmd_verify,
    &sl_cmd_logits,     &sl_cmd_plan,       &sl_cmd_bench,
    &sl_cmd_probe,      &sl_cmd_synth,      &sl_cmd_devices,
    &sl_cmd_tokenize,   &sl_cmd_detokenize, &sl_cmd_eval,
    &sl_cmd_perplexity, &sl_cmd_completion, NULL,
};
