#include "kernels/backend.h"
#include <string.h>

#if defined(HAVE_CUDA)
extern const struct backend backend_cuda;
#endif

const struct backend *backend_find(const char *name, struct error *err)
{
	static const struct backend *const all[] = {
		&backend_cpu,
#if defined(HAVE_CUDA)
		&backend_cuda,
#endif
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (!strcmp(all[i]->name, name))
			return all[i];
	fail(err,
		 strcmp(name, "cuda") ? "device '%s': expected cpu or cuda"
							  : "device '%s': this build has no CUDA (it needs nvcc; meson "
								"setup -Dcuda=enabled)",
		 name);
	return NULL;
}
