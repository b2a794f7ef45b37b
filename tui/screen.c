#define NCURSES_WIDECHAR 1
#include "tui/screen.h"
#include "base/utf8.h"
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <ncurses.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <term.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#undef columns // term.h makes macros of common words
#undef lines

#define PASTE_ON "\033[?2004h"
#define PASTE_OFF "\033[?2004l"

/* What a crash needs, prepared while all is well. */
static struct {
	char restore[512];
	size_t length;
	int fd;
	struct termios saved;
	bool has_saved;
} crash = {.fd = -1};

static void crash_handler(int number)
{
	if (crash.fd >= 0) {
		ssize_t ignored = write(crash.fd, crash.restore, crash.length);
		(void)ignored;
		if (crash.has_saved)
			tcsetattr(crash.fd, TCSANOW, &crash.saved);
	}
	raise(number); // SA_RESETHAND: the default action now
}

static void add_capability(const char *name)
{
	const char *string = tigetstr(name);
	size_t length = string && string != (char *)-1 ? strlen(string) : 0;
	if (crash.length + length >= sizeof crash.restore)
		return;
	memcpy(crash.restore + crash.length, string ? string : "", length);
	crash.length += length;
}

static void prepare_for_crashes(int fd)
{
	static const int numbers[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
	static char stack[64 * 1024];
	static const char off[] = PASTE_OFF "\033[?1000l\033[?1006l";
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
	crash.length = sizeof off - 1;
	memcpy(crash.restore, off, crash.length);
	add_capability("sgr0");
	add_capability("rmkx");
	add_capability("cnorm");
	add_capability("rmcup");
	crash.fd = fd;
	sigaltstack(&alternate, NULL);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		struct sigaction now, action = {.sa_handler = crash_handler};
		action.sa_flags = (int)(SA_ONSTACK | SA_RESETHAND | SA_NODEFER);
		if (sigaction(numbers[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL)
			sigaction(numbers[i], &action, NULL);
	}
}

static bool locale_is_utf8(void)
{
	setlocale(LC_CTYPE, ""); // numbers keep their point
	const char *codeset = nl_langinfo(CODESET);
	return strcmp(codeset, "UTF-8") == 0 || strcmp(codeset, "utf8") == 0;
}

static int new_terminal(struct screen *screen, const char *name, struct error *err)
{
	screen->handle = newterm(name, screen->out, screen->in);
	if (screen->handle)
		return 0;
	const char *term = getenv("TERM");
	screen->handle = newterm("xterm-256color", screen->out, screen->in);
	if (!screen->handle)
		return fail(err, "terminal '%s' is not known, and xterm-256color is not either",
					term ? term : "");
	snprintf(screen->notice, sizeof screen->notice,
			 "terminal '%.40s' is not known; xterm-256color is taken", term ? term : "");
	setenv("TERM", "xterm-256color", 1); // for readline
	return 0;
}

static void colors(struct screen *screen, bool no_color)
{
	const char *wish = getenv("NO_COLOR");
	screen->n_colors = 0;
	if (no_color || (wish && *wish) || !has_colors() || start_color() == ERR)
		return;
	use_default_colors();
	screen->n_colors = COLORS > 256    ? 8
					   : COLORS >= 256 ? 256
					   : COLORS >= 16  ? 16
					   : COLORS >= 8   ? 8
									   : 0;
}

/* Ctrl-C and Ctrl-Z stay signals, Ctrl-S and Ctrl-Q the terminal's; Ctrl-V and Ctrl-\ are keys. */
static void modes(struct screen *screen)
{
	struct termios now;
	cbreak();
	noecho();
	nonl();
	if (!screen->terminal || tcgetattr(screen->in_fd, &now))
		return;
	now.c_cc[VLNEXT] = now.c_cc[VQUIT] = _POSIX_VDISABLE;
#ifdef VDISCARD
	now.c_cc[VDISCARD] = _POSIX_VDISABLE;
#endif
	tcsetattr(screen->in_fd, TCSADRAIN, &now);
	def_prog_mode();
}

int screen_open(struct screen *screen, const struct screen_options *options, struct error *err)
{
	*screen = (struct screen){.in_fd = -1, .terminal = options->terminal};
	screen->ascii = !locale_is_utf8();
	if (options->terminal) {
		screen->in = fdopen(dup(STDIN_FILENO), "r");
		screen->out = fdopen(dup(STDOUT_FILENO), "w");
	} else {
		screen->in = fopen("/dev/null", "r");
		screen->out = fopen("/dev/null", "w");
	}
	if (!screen->in || !screen->out) {
		screen_close(screen);
		return fail(err, "the terminal: %s", strerror(errno));
	}
	if (options->terminal) {
		screen->in_fd = fileno(screen->in);
		crash.has_saved = tcgetattr(screen->in_fd, &crash.saved) == 0;
	}
	const char *term = getenv("TERM");
	bool usable = term && *term && strcmp(term, "dumb") != 0;
	if (new_terminal(screen, usable ? NULL : "xterm-256color", err)) {
		screen_close(screen);
		return -1;
	}
	set_escdelay(25);
	colors(screen, options->no_color);
	modes(screen);
	prepare_for_crashes(fileno(screen->out));
	screen->forced_size = options->rows > 0 && options->columns > 0;
	if (screen->forced_size)
		resizeterm(options->rows, options->columns);
	else if (!options->terminal)
		resizeterm(24, 80);
	getmaxyx(stdscr, screen->rows, screen->columns);
	screen->window = newwin(screen->rows, screen->columns, 0, 0);
	if (!screen->window) {
		screen_close(screen);
		return fail(err, "no memory for a screen of %d x %d", screen->columns, screen->rows);
	}
	screen_write(screen, PASTE_ON, strlen(PASTE_ON));
	return 0;
}

void screen_close(struct screen *screen)
{
	if (screen->mouse)
		screen_mouse(screen, false);
	if (screen->window)
		delwin(screen->window);
	if (screen->handle) {
		screen_write(screen, PASTE_OFF, strlen(PASTE_OFF));
		endwin();
		delscreen(screen->handle);
	}
	if (crash.has_saved && screen->in_fd >= 0)
		tcsetattr(screen->in_fd, TCSADRAIN, &crash.saved);
	crash.fd = -1;
	if (screen->in)
		fclose(screen->in);
	if (screen->out)
		fclose(screen->out);
	*screen = (struct screen){.in_fd = -1};
}

void screen_suspend(struct screen *screen)
{
	if (!screen->terminal)
		return;
	screen_write(screen, PASTE_OFF, strlen(PASTE_OFF));
	endwin();
	tcsetattr(screen->in_fd, TCSADRAIN, &crash.saved);
	raise(SIGSTOP);
	reset_prog_mode();
	screen_write(screen, PASTE_ON, strlen(PASTE_ON));
	screen_measure(screen);
	clearok(curscr, TRUE);
	wrefresh(curscr);
}

bool screen_measure(struct screen *screen)
{
	struct winsize size;
	if (screen->forced_size || !screen->terminal || ioctl(screen->in_fd, TIOCGWINSZ, &size) ||
		size.ws_row == 0 || size.ws_col == 0 ||
		(size.ws_row == screen->rows && size.ws_col == screen->columns))
		return false;
	screen_resize(screen, size.ws_row, size.ws_col);
	return true;
}

void screen_resize(struct screen *screen, int rows, int columns)
{
	resizeterm(rows, columns);
	wresize(screen->window, rows, columns);
	screen->rows = rows;
	screen->columns = columns;
}

void screen_mouse(struct screen *screen, bool on)
{
	mousemask(on ? BUTTON4_PRESSED | BUTTON5_PRESSED : 0, NULL);
	screen->mouse = on;
}

void screen_write(struct screen *screen, const char *bytes, size_t length)
{
	if (!screen->terminal)
		return;
	fflush(screen->out);
	while (length > 0) {
		ssize_t n = write(fileno(screen->out), bytes, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; // the terminal is gone; poll() tells
		bytes += n;
		length -= (size_t)n;
	}
}

void screen_text(const struct screen *screen, struct text *out)
{
	for (int row = 0; row < screen->rows; row++) {
		size_t end = out->length;
		for (int column = 0; column < screen->columns; column++) {
			cchar_t cell;
			wchar_t text[CCHARW_MAX + 1] = {0};
			attr_t attributes;
			short pair;
			if (mvwin_wch(screen->window, row, column, &cell) == ERR ||
				getcchar(&cell, text, &attributes, &pair, NULL) == ERR)
				continue;
			int width = text[0] < 0x80 ? 1 : wcwidth(text[0]);
			for (int i = 0; text[i]; i++) {
				char bytes[4];
				text_append(out, bytes, (size_t)utf8_encode((uint32_t)text[i], bytes));
			}
			if (text[0] && text[0] != L' ')
				end = out->length;
			if (width == 2)
				column++;
		}
		out->length = end;
		text_add_char(out, '\n');
	}
}

const char *screen_ncurses_version(void)
{
	return curses_version();
}
