#include "core/upload.h"
#include "base/size.h"
#include "core/fit.h"
#include "core/module.h"

static size_t data_bytes(const struct matrix *m)
{
	return dtype_span_bytes(m->dtype, (size_t)(m->stride * m->n_stored));
}

static size_t scale_bytes(const struct matrix *m)
{
	return m->scales ? (size_t)(m->stride * m->n_stored) / NVFP4_BLOCK : 0;
}

struct walk {
	const struct upload *upload;
	const struct slice *plan;
	uint64_t missing;     // of all matrices
	uint64_t done, total; // while uploading
	bool failed;
	struct error *err;
};

static uint64_t missing_of(const struct upload *upload, const struct matrix *m)
{
	const struct backend *b = upload->backend;
	uint64_t bytes = b->missing(upload->device, m->data, data_bytes(m));
	return bytes + (m->scales ? b->missing(upload->device, m->scales, scale_bytes(m)) : 0);
}

static void count(void *user, const struct module *module)
{
	struct walk *walk = user;
	walk->missing += missing_of(walk->upload, module->matrix);
}

static void bring(void *user, const struct module *module)
{
	struct walk *walk = user;
	const struct upload *upload = walk->upload;
	const struct backend *b = upload->backend;
	const struct matrix *m = module->matrix;
	uint64_t bytes = walk->failed ? 0 : missing_of(upload, m);
	if (bytes == 0)
		return;
	walk->failed =
		upload_step(upload, walk->plan->budget.name, walk->done, walk->total, walk->err) != 0 ||
		!b->adopt(upload->device, m->data, data_bytes(m), walk->err) ||
		(m->scales && !b->adopt(upload->device, m->scales, scale_bytes(m), walk->err));
	walk->done += bytes;
}

uint64_t upload_missing(const struct upload *upload, const struct slice *plan)
{
	struct walk walk = {.upload = upload, .plan = plan};
	modules_each(plan, count, &walk);
	return walk.missing;
}

static int look_for_room(const struct upload *upload, const struct slice *plan, uint64_t bytes,
						 struct error *err)
{
	struct fit fit = {.plan = plan, .weight_bytes = bytes};
	struct text why = {0};
	if (!upload->backend->room(upload->device, &fit.free_bytes, &fit.total_bytes) ||
		fit_has_room(&fit))
		return 0;
	fit_missing(&fit, &why);
	fail(err, "%s", text_chars(&why));
	text_free(&why);
	return -1;
}

int upload_whole(const struct upload *upload, const struct slice *plan, struct error *err)
{
	struct walk walk = {.upload = upload, .plan = plan, .err = err};
	walk.total = upload_missing(upload, plan);
	if (walk.total == 0)
		return 0;
	if (look_for_room(upload, plan, walk.total, err))
		return -1;
	modules_each(plan, bring, &walk);
	return walk.failed ? -1 : upload_step(upload, plan->budget.name, walk.total, walk.total, err);
}

int upload_step(const struct upload *upload, const char *budget, uint64_t done, uint64_t total,
				struct error *err)
{
	if (!upload->step || !upload->step(upload->user, budget, done, total) || done == total)
		return 0;
	char a[32], b[32];
	return fail(err, "uploading %s was stopped at %s of %s", budget_name_text(budget),
				size_text(done, a), size_text(total, b));
}

void upload_forget(const struct upload *upload, const struct checkpoint *checkpoint)
{
	for (int i = 0; i < checkpoint->n_shards; i++)
		upload->backend->abandon(upload->device, checkpoint->shards[i].data,
								 checkpoint->shards[i].bytes);
}
