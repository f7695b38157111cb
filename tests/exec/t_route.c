#include "config.h"

#include <math.h>

#include "src/exec/exec_cpu_impl.h"
#include "tests/support.h"

/* An expert's inputs have room for each position once. */
static void experts_are_chosen_once_whatever_the_numbers_are(void **state)
{
    static const float odd[] = {NAN, -INFINITY, INFINITY, 0};
    struct sl_hparams hp = {.n_experts = 8, .n_experts_used = 4};
    float s[8], c[16], bias[8];
    uint32_t chosen[4];

    for (unsigned way = 0; way < 64; way++) {
        unsigned seen = 0;

        hp.n_expert_groups = way < 32 ? 1 : 4;
        hp.n_expert_groups_used = way < 32 ? 1 : 2;
        for (unsigned e = 0; e < 8; e++) {
            s[e] = odd[way % 4];
            bias[e] = e % 2 == 0 && way % 32 >= 16 ? 1 : odd[way / 4 % 4];
        }
        sl_cpu_pick_experts(chosen, s, c, bias, &hp);
        for (unsigned i = 0; i < 4; i++) {
            assert_true(chosen[i] < 8);
            assert_false(seen >> chosen[i] & 1);
            seen |= 1u << chosen[i];
        }
    }
}

static void what_is_no_number_comes_last(void **state)
{
    const struct sl_hparams hp = {
        .n_experts = 6,
        .n_experts_used = 4,
        .n_expert_groups = 1,
        .n_expert_groups_used = 1,
    };
    float s[6] = {NAN, 1, NAN, -3, 2, -2}, c[12];
    uint32_t chosen[4];
    const uint32_t want[4] = {4, 1, 5, 3};

    sl_cpu_pick_experts(chosen, s, c, NULL, &hp);
    assert_memory_equal(chosen, want, sizeof want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_are_chosen_once_whatever_the_numbers_are),
        cmocka_unit_test(what_is_no_number_comes_last),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
