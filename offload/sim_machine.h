/*
 * sim_machine.h - a machine that is not there, under a virtual clock
 *
 * Disk, memory, PCIe, cores and a GPU that take the time they would take, and
 * move no data. The stream, the upload ring and the executor run on it
 * unchanged:
 *
 *   sl_io_open_sim       the disk, for sl_stream_config.io_open
 *   sl_device_open_sim   the GPU, behind the device table
 *   sl_machine_compute     the cores
 *
 * All by threads of the machine's clock.
 */
#ifndef SL_OFFLOAD_MACHINE_MODEL_H
#define SL_OFFLOAD_MACHINE_MODEL_H

#include "offload/cost.h"
#include "offload/device.h"
#include "offload/fluid.h"
#include "offload/io.h"

#define SL_MACHINE_NAME 48u

struct sl_machine_spec {
    char name[SL_MACHINE_NAME];
    struct sl_rates rates; /* no link_bps of a device: there is none */
    /* RAM; what a driver leaves of a device's. */
    uint64_t memory_bytes[SL_WORKERS];
};

/* A machine by name, NULL if there is none; the n-th, NULL beyond the last. */
const struct sl_machine_spec *sl_machine_spec_find(const char *name);
const struct sl_machine_spec *sl_machine_spec_at(size_t n);
/* What is missing or makes no sense. Errors: SL_ERR_USAGE naming it. */
int sl_machine_spec_check(const struct sl_machine_spec *spec,
                          struct sl_error *err);

struct sl_sim_machine {
    struct sl_machine_spec spec;
    struct sl_vclock *vclock;
    struct sl_clock *clock;
    struct sl_fluid fluid;
    pthread_mutex_t mutex; /* for waiting; the clock keeps the order */
    pthread_cond_t computed;
};

/* The caller becomes the clock's first thread. Errors: SL_ERR_NOMEM. */
int sl_sim_machine_init(struct sl_sim_machine *m,
                        const struct sl_machine_spec *spec,
                        struct sl_error *err);
void sl_sim_machine_fini(struct sl_sim_machine *m);

/* The cores read so many bytes of memory while they do so many operations. */
void sl_machine_compute(struct sl_sim_machine *m, double bytes, double ops);

/* config->arg: the machine. Errors: SL_ERR_NOMEM. */
int sl_io_open_sim(struct sl_io **io, const struct sl_io_config *config,
                   struct sl_error *err);

/* Errors: SL_ERR_NOMEM. Addresses that it gives out must not be read. */
int sl_device_open_sim(struct sl_device **dev, struct sl_sim_machine *m,
                       struct sl_error *err);
/* Puts a kernel on a model's SL_QUEUE_COMPUTE that reads so many bytes of VRAM,
 * does so many operations, and takes extra_s besides. Errors: SL_ERR_NOMEM. */
int sl_device_model_launch(struct sl_device *dev, double bytes, double ops,
                           double extra_s, struct sl_error *err);

#endif
