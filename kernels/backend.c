#include "kernels/backend.h"
#include "kernels/gpu.h"
#include <string.h>

#if defined(HAVE_CUDA)
extern const struct backend backend_cuda;
#else
static int not_built(struct error *err)
{
	return fail(err, "this build has no CUDA (with nvcc at hand: meson setup build "
					 "-Dcuda=enabled); --device cpu runs everything");
}

void gpu_facts(struct gpu_facts *facts)
{
	*facts = (struct gpu_facts){0};
	not_built(&facts->problem);
}

int gpu_usable(int card, struct error *err)
{
	not_built(err);
	return fail_in(err, "--device cuda:%d", card);
}
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
	fail(err, "device '%s': expected cpu or cuda", name);
	return NULL;
}
