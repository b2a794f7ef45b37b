/*
 * What a tokenizer.json becomes, and nothing else: tokenizer_file.c fills the struct, tokenizer.c
 * uses it. Only these two include this header.
 */
#ifndef CORE_TOKENIZER_FILE_H
#define CORE_TOKENIZER_FILE_H

#include "core/bpe.h"
#include "core/pieces.h"
#include "core/tokenizer.h"
#include "core/vocab.h"

struct tokenizer {
	struct vocab vocab;
	struct bpe bpe;
	struct pieces *pieces;
	bool ignore_merges;        // a piece that is a token is that token, merges or not
	int32_t byte_ids[256];     // the token of every single byte
	int32_t think, end_think;  // what TRUST_THINK recognises; -1 = the file has none
	bool begins_special[256];  // whether some special token begins with this byte
	uint32_t *special_lengths; // distinct, longest first
	size_t n_special_lengths;
};

#endif
