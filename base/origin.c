#include "base/origin.h"

const char *origin_name(enum origin origin)
{
	static const char *const names[N_ORIGINS] = {
		[ORIGIN_UNKNOWN] = "unknown",     [ORIGIN_FILE] = "file",
		[ORIGIN_PUBLISHED] = "published", [ORIGIN_MEASURED] = "measured",
		[ORIGIN_DERIVED] = "derived",     [ORIGIN_ESTIMATED] = "estimated",
	};
	return (unsigned)origin < N_ORIGINS ? names[origin] : "unknown";
}
