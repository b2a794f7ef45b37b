#include "core/checkpoint.h"
#include "base/clock.h"
#include "base/text.h"
#include "tests/unit/folder.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static struct folder folder;

static int setup(void **state)
{
	(void)state;
	folder_make(&folder);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	folder_remove(&folder);
	return 0;
}

static void put_length(struct text *text, uint64_t length)
{
	for (int i = 0; i < 8; i++)
		text_add_char(text, (char)(length >> (8 * i) & 0xff));
}

/* A safetensors file: length, header, data. Writers pad the header with spaces to a multiple of 8.
 */
static void write_tensors(const char *name, const char *header, size_t data_bytes)
{
	struct text text = {0};
	size_t length = (strlen(header) + 7) / 8 * 8;
	put_length(&text, length);
	text_add(&text, header);
	while (text.length < 8 + length)
		text_add_char(&text, ' ');
	for (size_t i = 0; i < data_bytes; i++)
		text_add_char(&text, (char)i);
	folder_write(&folder, name, text.data, text.length);
	text_free(&text);
}

static void expect_sentence(const struct error *err, const char *part, const char *input)
{
	if (!strstr(err->text, part))
		fail_msg("%s: \"%s\" does not say \"%s\"", input, err->text, part);
}

static void expect_refused_file(const char *path, const char *part, const char *input)
{
	struct checkpoint c;
	struct error err = {0};
	if (checkpoint_open_file(&c, path, &err) == 0)
		fail_msg("accepted: %s", input);
	expect_sentence(&err, part, input);
	assert_null(c.shards);
	checkpoint_close(&c);
}

#define F32x2(offsets) "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" offsets "}}"
#define SHAPE(shape) "{\"a\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[0,8]}}"
#define TWO(a, b)                                                                                  \
	"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" a                                   \
	"},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" b "}}"

static void refuses_broken_headers(void **state)
{
	static const struct {
		const char *header;
		size_t data_bytes;
		const char *says;
	} cases[] = {
		{"", 0, "header: "},
		{"[]", 0, "the header is not a JSON object"},
		{"{", 0, "header: line 1"},
		{"{\"a\":1}", 0, "tensor \"a\": its entry in the header is not an object"},
		{"{\"a\":{}}", 0, "tensor \"a\" has no \"dtype\""},
		{"{\"a\":{\"dtype\":\"F32\"}}", 0, "tensor \"a\" has no \"shape\""},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, "tensor \"a\" has no \"data_offsets\""},
		{"{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype F33"},
		{"{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype f32"},
		{"{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype 32"},
		{"{\"a\":{\"dtype\":\"F32\\u0000\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype F32"},
		{SHAPE("2"), 8, "\"shape\" is not an array"},
		{SHAPE("[-2]"), 8, "negative size -2"},
		{SHAPE("[2.5]"), 8, "tensor \"a\""},
		{SHAPE("[\"2\"]"), 8, "tensor \"a\""},
		{SHAPE("[1,1,1,1,2]"), 8, "5 dimensions"},
		{SHAPE("[4294967296,4294967296]"), 8, "does not fit"},
		{SHAPE("[4611686018427387904]"), 8, "does not fit"},
		{SHAPE("[99999999999999999999]"), 8, "tensor \"a\""},
		{SHAPE("[3]"), 8, "hold 8 bytes, dtype and shape need 12"},
		{SHAPE("[]"), 8, "hold 8 bytes, dtype and shape need 4"},
		{F32x2("[0]"), 8, "not an array of two numbers"},
		{F32x2("[0,8,9]"), 8, "not an array of two numbers"},
		{F32x2("8"), 8, "not an array of two numbers"},
		{F32x2("[8,0]"), 8, "[8, 0] are not an ascending range"},
		{F32x2("[-8,0]"), 8, "[-8, 0] are not an ascending range"},
		{F32x2("[0,8.5]"), 8, "tensor \"a\""},
		{F32x2("[0,1e3]"), 8, "hold 1000 bytes"},
		{F32x2("[0,8]"), 7, "ends at byte 8 of the data, but the file has only 7"},
		{F32x2("[9223372036854775799,9223372036854775807]"), 8, "ends at byte 9223372036854775807"},
		{F32x2("[8,16]"), 16, "bytes 0 to 8 of the data belong to no tensor (before tensor \"a\")"},
		{F32x2("[0,8]"), 9, "the last 1 bytes of the file belong to no tensor"},
		{"{}", 3, "the last 3 bytes of the file belong to no tensor"},
		{TWO("[0,4]", "[0,4]"), 8, "tensor \"b\" (from byte 0 of the data) overlaps tensor \"a\""},
		{TWO("[2,6]", "[0,4]"), 8, "tensor \"a\" (from byte 2 of the data) overlaps tensor \"b\""},
		{TWO("[0,4]", "[5,9]"), 9, "bytes 4 to 5"},
		{"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
		 "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
		 0, "key already"},
		{"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
		 "\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
		 0, "key already"},
		{"{\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "0 bytes"},
		{"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "NUL"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}} x", 8, "header: line 1"},
		{"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
		 "\"b\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[1,3]}}",
		 3,
		 "tensor \"b\" starts at byte 121 of the file, which is not a multiple of its element size "
		 "2"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		write_tensors("x.safetensors", cases[i].header, cases[i].data_bytes);
		folder_file(&folder, "x.safetensors");
		expect_refused_file(folder.file, cases[i].says, cases[i].header);
		expect_refused_file(folder.file, "x.safetensors: ", cases[i].header); // and names the file
	}
}

static void refuses_lying_lengths_and_non_files(void **state)
{
	static const struct {
		uint64_t length;
		size_t bytes; // of the file
		const char *says;
	} cases[] = {
		{0, 0, "has 0 bytes, but a safetensors file begins with"},
		{0, 7, "has 7 bytes, but"},
		{1, 8, "the header says it has 1 bytes, the file has 0 after the first 8"},
		{UINT64_MAX, 32, "the header says it has 18446744073709551615 bytes, the file has 24"},
		{UINT64_MAX - 7, 32, "the file has 24"},
		{25, 32, "the header says it has 25 bytes"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct text text = {0};
		put_length(&text, cases[i].length);
		while (text.length < 32)
			text_add_char(&text, ' ');
		folder_write(&folder, "x.safetensors", text.data, cases[i].bytes);
		text_free(&text);
		expect_refused_file(folder_file(&folder, "x.safetensors"), cases[i].says, "length");
	}
	// more than the format's 100 MB, in a file that has them (sparse)
	struct text text = {0};
	put_length(&text, 100000001);
	folder_write(&folder, "x.safetensors", text.data, text.length);
	text_free(&text);
	assert_int_equal(truncate(folder_file(&folder, "x.safetensors"), 200000000), 0);
	expect_refused_file(folder.file, "at most 100000000 are allowed", "long header");
	expect_refused_file(folder.path, "is a directory", "directory");
	expect_refused_file(folder_file(&folder, "none"), "No such file", "missing");
	assert_int_equal(mkfifo(folder_file(&folder, "fifo"), 0600), 0);
	expect_refused_file(folder.file, "not a regular file", "FIFO");
}

static void expect_refused(const char *part)
{
	struct checkpoint c;
	struct error err = {0};
	if (checkpoint_open(&c, folder.path, &err) == 0)
		fail_msg("accepted, expected \"%s\"", part);
	expect_sentence(&err, part, "folder");
	checkpoint_close(&c);
	folder_empty(&folder);
}

#define INDEX "model.safetensors.index.json"
#define ONE(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"

static void write_index(const char *text)
{
	folder_write(&folder, INDEX, text, strlen(text));
}

static void refuses_broken_folders(void **state)
{
	static const struct {
		const char *index, *says;
	} broken[] = {
		{"", INDEX},
		{"{", INDEX ": line 1"},
		{"[]", "has no object \"weight_map\""},
		{"{\"weight_map\":[]}", "has no object \"weight_map\""},
		{"{\"weight_map\":{}}", "\"weight_map\" is empty"},
		{"{\"weight_map\":{\"a\":\"../m1.safetensors\"}}",
		 "\"../m1.safetensors\" is not the name of a file beside the index"},
		{"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "\"/etc/passwd\" is not the name"},
		{"{\"weight_map\":{\"a\":\"..\"}}", "\"..\" is not the name"},
		{"{\"weight_map\":{\"a\":\"\"}}", "\"\" is not the name"},
		{"{\"weight_map\":{\"a\":\"m1\\u0000.safetensors\"}}", "\"m1\" is not the name"},
		{"{\"weight_map\":{\"a\":1}}", "\"1\" is not the name"},
		{"{\"weight_map\":{\"a\":\"m2.safetensors\"}}", "m2.safetensors: No such file"},
		{"{\"weight_map\":{\"a\":\"m1.safetensors\",\"b\":\"m1.safetensors\"}}",
		 "tensor \"b\" is not in m1.safetensors, where the index says it is"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
		write_tensors("m1.safetensors", ONE("a"), 4);
		write_index(broken[i].index);
		expect_refused(broken[i].says);
	}
	expect_refused("no model.safetensors");

	write_tensors("m1.safetensors", ONE("a"), 4);
	write_tensors("m2.safetensors", ONE("a"), 4);
	write_index("{\"weight_map\":{\"a\":\"m1.safetensors\",\"b\":\"m2.safetensors\"}}");
	expect_refused("tensor \"a\" is in m1.safetensors and again in m2.safetensors");

	write_tensors("m1.safetensors", ONE("a"), 4);
	write_tensors("m2.safetensors", ONE("b"), 4);
	write_index("{\"weight_map\":{\"a\":\"m2.safetensors\",\"b\":\"m1.safetensors\"}}");
	expect_refused("tensor \"a\" is in m1.safetensors, but the index says it is in m2.safetensors");

	write_tensors("model-00001-of-00002.safetensors", ONE("a"), 4);
	expect_refused("says there are 2 shards, found are 1");

	assert_int_equal(mkdir(folder_file(&folder, "model.safetensors"), 0700), 0);
	expect_refused("model.safetensors: is a directory");

	struct checkpoint c;
	struct error err = {0};
	write_tensors("model.safetensors", ONE("a"), 4);
	assert_int_equal(checkpoint_open(&c, folder_file(&folder, "model.safetensors"), &err), -1);
	expect_sentence(&err, "model.safetensors: is a file, expected the directory", "file");
	assert_int_equal(checkpoint_open(&c, folder_file(&folder, "nowhere"), &err), -1);
	expect_sentence(&err, "nowhere: No such file", "nowhere");
	folder_empty(&folder);
}

static void opens_what_is_odd_but_right(void **state)
{
	struct checkpoint c;
	struct error err = {0};
	(void)state;
	// metadata, scalars, empty tensors, unknown members, order of the header, unaligned bytes
	write_tensors("x.safetensors",
				  "{\"__metadata__\":{\"format\":\"pt\"},"
				  "\"two\":{\"dtype\":\"U8\",\"shape\":[1,3],\"data_offsets\":[1,4],\"more\":[1]},"
				  "\"none\":{\"dtype\":\"F32\",\"shape\":[7,0],\"data_offsets\":[1,1]},"
				  "\"one\":{\"data_offsets\":[0,1],\"shape\":[],\"dtype\":\"U8\"}}  ",
				  4);
	if (checkpoint_open_file(&c, folder_file(&folder, "x.safetensors"), &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(c.n_tensors, 3);
	assert_int_equal(c.tensor_bytes, 4);
	assert_string_equal(c.tensors[0].name, "one"); // by offset
	assert_string_equal(c.tensors[1].name, "none");
	assert_string_equal(c.tensors[2].name, "two");
	const struct tensor *two = checkpoint_find(&c, "two");
	assert_non_null(two);
	assert_int_equal(two->n_dims, 2);
	assert_int_equal(two->shape[1], 3);
	assert_int_equal(((const unsigned char *)two->data)[2], 3);
	assert_int_equal(checkpoint_find(&c, "one")->n_dims, 0);
	assert_null(checkpoint_find(&c, "on"));
	assert_null(checkpoint_find(&c, "__metadata__"));
	checkpoint_close(&c);

	// no tensor at all, and shards without an index
	write_tensors("model-a.safetensors", "{}", 0);
	write_tensors("model-b.safetensors", ONE("b"), 4);
	if (checkpoint_open(&c, folder.path, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(c.n_shards, 2);
	assert_non_null(checkpoint_find(&c, "b"));
	checkpoint_close(&c);
	folder_empty(&folder);
}

static void opens_the_fixture(void **state)
{
	char path[1024];
	struct checkpoint c;
	struct error err = {0};
	(void)state;
	snprintf(path, sizeof path, "%s/golden/nest-tiny", getenv("ELASTISCOPE_TESTS"));
	if (checkpoint_open(&c, path, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(c.n_shards, 2);
	assert_int_equal(c.tensor_bytes, 865284); // what the index says
	const struct tensor *t = checkpoint_find(&c, "backbone.layers.0.mixer.conv1d.weight");
	assert_non_null(t);
	assert_int_equal(t->dtype, DTYPE_BF16);
	assert_int_equal(t->n_dims, 3);
	assert_int_equal(t->shape[0], 192);
	assert_int_equal((const unsigned char *)t->data - c.shards[0].data, 6240 + 8 + 42728);
	int estimated = 1;
	uint64_t resident = checkpoint_resident(&c, &estimated);
	assert_int_equal(estimated, 0);
	assert_in_range(resident, 1, 444704 + 432924);
	char hash[17], again[17];
	checkpoint_hash(&c, hash);
	checkpoint_close(&c);
	assert_int_equal(strlen(hash), 16);
	assert_int_equal(checkpoint_open(&c, path, &err), 0);
	checkpoint_hash(&c, again);
	assert_string_equal(hash, again);
	checkpoint_close(&c);
}

static void writes_what_it_reads(void **state)
{
	static const uint8_t bytes[3] = {1, 2, 3};
	static const float floats[2] = {1.5f, -2};
	static const int64_t wide[1] = {-1};
	const struct named_tensor tensors[] = {
		{"b\"\\\n\xc3\xa9", {DTYPE_U8, 1, {3}, bytes, 3}, 0},
		{"f", {DTYPE_F32, 2, {1, 2}, floats, 8}, 0},
		{"w", {DTYPE_I64, 0, {0}, wide, 8}, 0},
	};
	struct checkpoint c;
	struct error err = {0};
	char one[17], two[17];
	(void)state;
	const char *path = folder_file(&folder, "out.safetensors");
	folder_write(&folder, "out.safetensors", "old", 3); // is replaced
	if (checkpoint_write(path, tensors, 3, &err) != 0 || checkpoint_open_file(&c, path, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(c.n_tensors, 3);
	for (int i = 0; i < 3; i++) {
		const struct tensor *t = checkpoint_find(&c, tensors[i].name);
		assert_non_null(t);
		assert_int_equal(t->dtype, tensors[i].tensor.dtype);
		assert_int_equal(t->n_dims, tensors[i].tensor.n_dims);
		assert_int_equal(t->bytes, tensors[i].tensor.bytes);
		assert_memory_equal(t->data, tensors[i].tensor.data, t->bytes);
		assert_int_equal((uintptr_t)t->data % dtype_bytes(t->dtype), 0);
	}
	checkpoint_hash(&c, one);
	checkpoint_close(&c);

	static const struct checkpoint_note notes[] = {{"text", "a \"quoted\"\nline"}, {"tokens", "7"}};
	struct text note = {0};
	assert_int_equal(checkpoint_write_noted(path, tensors, 3, notes, 2, &err), 0);
	assert_int_equal(checkpoint_open_file(&c, path, &err), 0);
	assert_int_equal(c.n_tensors, 3);
	checkpoint_note(&c, "text", &note);
	assert_string_equal(text_chars(&note), "a \"quoted\"\nline");
	checkpoint_note(&c, "none", &note);
	assert_string_equal(text_chars(&note), "a \"quoted\"\nline");
	text_free(&note);
	checkpoint_close(&c);

	// another last byte is another checkpoint
	static const uint8_t other[3] = {1, 2, 4};
	struct named_tensor changed[3];
	memcpy(changed, tensors, sizeof changed);
	changed[0].tensor.data = other;
	assert_int_equal(checkpoint_write(path, changed, 3, &err), 0);
	assert_int_equal(checkpoint_open_file(&c, path, &err), 0);
	checkpoint_hash(&c, two);
	checkpoint_close(&c);
	assert_string_not_equal(one, two);

	// what goes wrong leaves the old file and nothing else
	changed[1].name = changed[0].name;
	assert_int_equal(checkpoint_write(path, changed, 3, &err), -1);
	expect_sentence(&err, "would be written twice", "twice");
	changed[1] = tensors[1];
	changed[1].tensor.shape[0] = 5;
	assert_int_equal(checkpoint_write(path, changed, 3, &err), -1);
	expect_sentence(&err, "tensor \"f\" has 8 bytes, dtype and shape need 40", "bytes");
	assert_int_equal(checkpoint_open_file(&c, path, &err), 0);
	checkpoint_close(&c);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(checkpoint_write(folder_file(&folder, "no/x"), tensors, 3, &err), -1);
	expect_sentence(&err, "no/x: No such file", "folder");
	assert_int_equal(mkdir(folder_file(&folder, "d"), 0700), 0);
	assert_int_equal(checkpoint_write(folder.file, tensors, 3, &err), -1);
	expect_sentence(&err, "/d: is a directory, expected a file", "directory");
	assert_int_equal(rmdir(folder.file), 0);
	assert_int_equal(rmdir(folder.path), 0); // no temporary file is left
	assert_int_equal(mkdir(folder.path, 0700), 0);
}

/* As many tensors as the NVFP4 release has, of 2 MiB each in a sparse file of 47 GB. */
static void opens_many_tensors_quickly(void **state)
{
	enum { N = 24147 };
	struct text header = {0}, file = {0};
	(void)state;
	for (int i = 0; i < N; i++)
		text_format(&header,
					"%s\"backbone.layers.%d.mixer.experts.%d.up_proj.weight\":{\"dtype\":\"BF16\","
					"\"shape\":[1024,1024],\"data_offsets\":[%lld,%lld]}",
					i ? "," : "{", i / 128, i % 128, (long long)i << 21, (long long)(i + 1) << 21);
	text_add_char(&header, '}');
	while (header.length % 8)
		text_add_char(&header, ' ');
	put_length(&file, header.length);
	text_append(&file, header.data, header.length);
	folder_write(&folder, "model.safetensors", file.data, file.length);
	if (truncate(folder.file, (off_t)file.length + ((off_t)N << 21)) != 0)
		skip(); // a file system without large sparse files
	struct checkpoint c;
	struct error err = {0};
	uint64_t start = clock_ns();
	if (checkpoint_open(&c, folder.path, &err) != 0)
		fail_msg("%s", err.text);
	for (size_t i = 0; i < c.n_tensors; i++)
		assert_ptr_equal(checkpoint_find(&c, c.tensors[i].name), &c.tensors[i].tensor);
	uint64_t opened = clock_ns() - start;
	assert_int_equal(c.n_tensors, N);
	int estimated = 0;
	uint64_t resident = checkpoint_resident(&c, &estimated);
	uint64_t counted = clock_ns() - start - opened;
	assert_int_equal(estimated, 1);
	assert_in_range(resident, 0, c.shards[0].bytes / 2);
	char hash[17];
	checkpoint_hash(&c, hash);
	uint64_t hashed = clock_ns() - start - opened - counted;
	print_message("%d tensors: opened in %.1f ms, residency in %.1f ms, hash in %.1f ms\n", N,
				  (double)opened / 1e6, (double)counted / 1e6, (double)hashed / 1e6);
	assert_in_range(opened, 1, 3000000000u); // generous: sanitizers, busy machines
	checkpoint_close(&c);
	text_free(&header);
	text_free(&file);
	folder_empty(&folder);
}

/* Whatever a few changed bytes do to a small file, it opens or is refused; data read stays inside.
 */
static void survives_mutations(void **state)
{
	static const char header[] =
		"{\"__metadata__\":{\"format\":\"pt\"},"
		"\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
		"\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[16,24]},"
		"\"c\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[24,25]}}";
	static const char telling[] = "{}[]\",:0123456789-.eEFBU\\ \n";
	uint64_t random = 88172645463325252u;
	int opened = 0, refused = 0;
	(void)state;
	write_tensors("x.safetensors", header, 25);
	size_t size = 8 + (strlen(header) + 7) / 8 * 8 + 25;
	char original[512], bytes[512];
	FILE *file = fopen(folder_file(&folder, "x.safetensors"), "rb");
	assert_non_null(file);
	assert_int_equal(fread(original, 1, sizeof original, file), size);
	fclose(file);
	for (int i = 0; i < 4000; i++) {
		struct checkpoint c;
		struct error err = {0};
		memcpy(bytes, original, size);
		int changes = 1 + i % 4;
		for (int k = 0; k < changes; k++) {
			random ^= random << 13, random ^= random >> 7, random ^= random << 17;
			size_t at = random % (i % 8 == 0 ? 8 : size);
			bytes[at] = random >> 40 & 1 ? telling[(random >> 41) % (sizeof telling - 1)]
										 : (char)(random >> 48);
		}
		size_t length = i % 5 == 0 ? (size_t)(random >> 20) % size : size;
		folder_write(&folder, "x.safetensors", bytes, length);
		if (checkpoint_open_file(&c, folder.file, &err) != 0) {
			assert_true(err.text[0]);
			refused++;
			continue;
		}
		opened++;
		unsigned sum = 0;
		for (size_t t = 0; t < c.n_tensors; t++)
			for (size_t b = 0; b < c.tensors[t].tensor.bytes; b++)
				sum += ((const unsigned char *)c.tensors[t].tensor.data)[b];
		assert_true(sum < 26 * 255);
		checkpoint_close(&c);
	}
	print_message("mutations: %d opened, %d refused\n", opened, refused);
	assert_true(opened > 20 && refused > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_broken_headers),
		cmocka_unit_test(refuses_lying_lengths_and_non_files),
		cmocka_unit_test(refuses_broken_folders),
		cmocka_unit_test(opens_what_is_odd_but_right),
		cmocka_unit_test(opens_the_fixture),
		cmocka_unit_test(writes_what_it_reads),
		cmocka_unit_test(opens_many_tensors_quickly),
		cmocka_unit_test(survives_mutations),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
