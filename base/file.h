/*
 * Files and well-known places. Errors name the path and the reason ("is a directory", strerror).
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/error.h"
#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>

/* Appends the whole file to out; refuses more than max_bytes and anything but a regular file. */
int file_read(const char *path, size_t max_bytes, struct text *out, struct error *err);

/* Writes a file that is there whole or not at all: what fill() writes (0, or -1 and errno), under
 * another name beside it, synced, then renamed. Refuses what is no regular file. */
int file_replace(const char *path, int (*fill)(int fd, void *user), void *user, struct error *err);
int file_write(const char *path, struct text *text, struct error *err);
int file_write_all(int fd, const void *bytes, size_t n); // -1 and errno; for fill()

/* fsync of the folder that holds path, so that a new name in it survives a crash. Not every file
 * system can, so failure is no error. */
void file_sync_folder(const char *path);

bool file_exists(const char *path); // as a regular file
bool file_is_directory(const char *path);

/* "directory/name", or name alone if it is absolute; into a new string (free()). */
char *file_join(const char *directory, const char *name, struct error *err);

/* mkdir -p; what it creates only the user may read. */
int file_make_directories(const char *path, struct error *err);

enum file_place { PLACE_CONFIG, PLACE_DATA, PLACE_CACHE, PLACE_STATE };

/* $XDG_{CONFIG,DATA,CACHE,STATE}_HOME/elastiscope/NAME (or their defaults under $HOME); nothing is
 * created. NULL and an error without $HOME. free(). */
char *file_place(enum file_place place, const char *name, struct error *err);

/* The path of a file or folder that comes with the program ("demo", "themes"): in
 * $ELASTISCOPE_SHARE, in the source tree if the program runs from its build folder, in
 * ../share/elastiscope beside the executable, in the installed place. free(). */
char *file_shared(const char *name, struct error *err);

#endif
