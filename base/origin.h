/* Where a number comes from. One enum everywhere; "unknown" prints as N/A, never as 0. */
#ifndef BASE_ORIGIN_H
#define BASE_ORIGIN_H

enum origin {
	ORIGIN_UNKNOWN,   // nobody knows
	ORIGIN_FILE,      // stands in the checkpoint or a file beside it
	ORIGIN_PUBLISHED, // a paper, a model card
	ORIGIN_MEASURED,  // by this program, here
	ORIGIN_DERIVED,   // arithmetic on facts; widths that the user typed
	ORIGIN_ESTIMATED, // a reasoned guess
	N_ORIGINS
};

const char *origin_name(enum origin origin); // "file", "published", ...

#endif
