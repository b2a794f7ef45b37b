/*
 * What can be said of graphics cards without opening one as a device: what this build has, what the
 * machine lacks. In every build; one without CUDA says so.
 */
#ifndef KERNELS_GPU_H
#define KERNELS_GPU_H

#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

#define GPU_MAX_CARDS 16

struct gpu_card {
	char name[64];
	int capability; // 90
	uint64_t bytes;
	/* By everybody, now; -1 = not known. */
	int64_t used_bytes;
	int power_mw, clock_mhz, temperature_c, busy_percent;
};

struct gpu_facts {
	bool built;           // this build has CUDA
	int runtime, driver;  // 13000 = CUDA 13.0; driver: the newest that it knows, 0 = no driver
	bool nvml, cublas;    // their libraries can be opened
	struct error problem; // why no card can be used; "" = one can
	int n_cards;
	struct gpu_card cards[GPU_MAX_CARDS];
};

void gpu_facts(struct gpu_facts *facts);

/* There is a driver, yet no card can be used: what `auto` owes its user a word about. */
bool gpu_passed_over(struct error *why);

/* 0 if the card can be used, else -1 and why not, with what helps. */
int gpu_usable(int card, struct error *err);

#endif
