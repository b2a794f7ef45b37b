/* test_faults DIR BUDGET KIND OUT: a child of DIR with one fault, into the folder OUT. */
#include "faults.h"

#include "base/file.h"
#include <stdio.h>

int main(int argc, char **argv)
{
	struct error err = {0};
	if (argc != 5 || fault_find(argv[3]) < 0) {
		fprintf(stderr, "usage: test_faults DIR BUDGET "
						"none|norm|heads|experts|width|scaled|permuted OUT\n");
		return 2;
	}
	struct model *model = model_open(argv[1], NULL, &err);
	int status = model ? file_make_directories(argv[4], &err) : -1;
	if (status == 0)
		status = fault_write(model, argv[2], (enum fault)fault_find(argv[3]), argv[4], &err);
	model_release(model);
	if (status < 0)
		fprintf(stderr, "%s\n", err.text);
	return status < 0;
}
