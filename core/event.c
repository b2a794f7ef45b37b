#include "core/event.h"

static const char *const phases[] = {"prefill", "think", "answer"};
static const char *const switch_reasons[] = {"user", "policy", "phase"};
static const char *const stop_reasons[] = {"eos", "length", "stopped", "error"};

const char *phase_name(enum phase phase)
{
	return (unsigned)phase < N_PHASES ? phases[phase] : "unknown";
}

const char *switch_reason_name(enum switch_reason reason)
{
	return (unsigned)reason <= SWITCH_PHASE ? switch_reasons[reason] : "unknown";
}

const char *stop_reason_name(enum stop_reason reason)
{
	return (unsigned)reason <= STOP_ERROR ? stop_reasons[reason] : "unknown";
}
