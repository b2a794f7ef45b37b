/*
 * TESTED_BACKEND, the table that a program of tests runs: the CPU's, or with TEST_CUDA the CUDA
 * one, on the shim (TEST_SHIM) or on a card; where there is none the program is skipped. For the
 * one file of a program that says which table it is.
 */
#ifndef TESTS_TESTED_H
#define TESTS_TESTED_H

#include "kernels/backend.h"

#if !defined(TEST_CUDA)
#define TESTED_BACKEND (&backend_cpu)
#else
#include "kernels/cuda_device.h"
#define TESTED_BACKEND (&backend_cuda)
#endif

#if defined(TEST_CUDA) && !defined(TEST_SHIM)
#include "kernels/gpu.h"
#include <stdio.h>
#include <unistd.h>

/* A build with CUDA on a machine without a card. */
__attribute__((constructor)) static void needs_a_card(void)
{
	struct error err = {0};
	if (gpu_usable(0, &err) == 0)
		return;
	printf("skipped: %s\n", err.text);
	fflush(stdout);
	_exit(77);
}
#endif

#endif
