/*
 * The workbench on a real (pseudo) terminal that libvterm reads: what scripts cannot see. The
 * program is in $DRIVE; every test starts its own. Waiting means reading the terminal until a
 * condition holds, 20 s at most; nothing sleeps.
 */
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <utmp.h>
#include <vterm.h>

#include <cmocka.h>

#define LIMIT_MS 20000

struct session {
	pid_t child;
	int master, slave;
	VTerm *vterm;
	VTermScreen *screen;
	int rows, columns;
	bool alternate;
	struct termios before;
	char text[200 * 400 * 4];
	double first_ms; // until the first character stood on the screen
};

static struct session session;

static double now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int property(VTermProp prop, VTermValue *value, void *user)
{
	(void)user;
	if (prop == VTERM_PROP_ALTSCREEN)
		session.alternate = value->boolean;
	return 1;
}

static const VTermScreenCallbacks callbacks = {.settermprop = property};

static void open_vterm(int rows, int columns)
{
	session.rows = rows;
	session.columns = columns;
	session.vterm = vterm_new(rows, columns);
	vterm_set_utf8(session.vterm, 1);
	session.screen = vterm_obtain_screen(session.vterm);
	vterm_screen_set_callbacks(session.screen, &callbacks, NULL);
	vterm_screen_enable_altscreen(session.screen, 1);
	vterm_screen_reset(session.screen, 1);
}

static void start(const char *const *arguments)
{
	const char *argv[16] = {getenv("DRIVE")};
	struct winsize size = {.ws_row = 24, .ws_col = 80};
	int n = 1;
	while (arguments && *arguments)
		argv[n++] = *arguments++;
	memset(&session, 0, sizeof session);
	open_vterm(24, 80);
	assert_int_equal(openpty(&session.master, &session.slave, NULL, NULL, &size), 0);
	tcgetattr(session.slave, &session.before);
	session.child = fork();
	assert_true(session.child >= 0);
	if (session.child == 0) {
		close(session.master);
		login_tty(session.slave);
		setenv("TERM", "xterm-256color", 1);
		setenv("LC_ALL", "C.UTF-8", 1);
		unsetenv("NO_COLOR");
		execv(argv[0], (char **)argv);
		_exit(127);
	}
	fcntl(session.master, F_SETFL, O_NONBLOCK);
}

static void screen_as_text(void)
{
	size_t at = 0;
	for (int row = 0; row < session.rows; row++) {
		for (int column = 0; column < session.columns; column++) {
			VTermScreenCell cell;
			vterm_screen_get_cell(session.screen, (VTermPos){row, column}, &cell);
			uint32_t code = cell.chars[0];
			session.text[at++] = code >= 32 && code < 127 ? (char)code : code ? '?' : ' ';
		}
		session.text[at++] = '\n';
	}
	session.text[at] = 0;
}

/* Reads what the program writes; false when it has closed its side. */
static bool take(int timeout_ms)
{
	char bytes[16384];
	struct pollfd fd = {.fd = session.master, .events = POLLIN};
	if (poll(&fd, 1, timeout_ms) <= 0)
		return true;
	ssize_t n = read(session.master, bytes, sizeof bytes);
	if (n > 0)
		vterm_input_write(session.vterm, bytes, (size_t)n);
	return n > 0;
}

static bool shows(const char *text)
{
	screen_as_text();
	return strstr(session.text, text) != NULL;
}

static void until(const char *text)
{
	double end = now_ms() + LIMIT_MS;
	while (!shows(text)) {
		if (now_ms() > end || !take(100)) {
			fprintf(stderr, "waited for '%s'; the screen is:\n%s\n", text, session.text);
			fail();
		}
	}
}

static void until_not(const char *text)
{
	double end = now_ms() + LIMIT_MS;
	while (shows(text)) {
		if (now_ms() > end || !take(100)) {
			fprintf(stderr, "'%s' does not go away; the screen is:\n%s\n", text, session.text);
			fail();
		}
	}
}

/* Writes all of it, reading meanwhile, as terminals do. */
static void send_bytes(const char *bytes, size_t length)
{
	double end = now_ms() + LIMIT_MS;
	while (length > 0 && now_ms() < end) {
		ssize_t n = write(session.master, bytes, length > 1024 ? 1024 : length);
		if (n > 0) {
			bytes += n;
			length -= (size_t)n;
		}
		take(n > 0 ? 0 : 20);
	}
	assert_int_equal(length, 0);
}

static void send_keys(const char *keys)
{
	send_bytes(keys, strlen(keys));
}

/* The program's end (or stop, with WUNTRACED); what it still writes is read. */
static int ended(int flags)
{
	double end = now_ms() + LIMIT_MS;
	int status;
	while (now_ms() < end) {
		pid_t pid = waitpid(session.child, &status, WNOHANG | flags);
		if (pid == session.child) {
			while (session.master >= 0) { // the rest of its output
				struct pollfd fd = {.fd = session.master, .events = POLLIN};
				if (poll(&fd, 1, 0) <= 0 || !take(0))
					break;
			}
			return status;
		}
		if (session.master >= 0)
			take(20);
		else
			poll(NULL, 0, 5);
	}
	kill(session.child, SIGKILL);
	fail_msg("the program does not end");
	return -1;
}

static void assert_restored(void)
{
	struct termios now;
	tcgetattr(session.slave, &now);
	assert_int_equal(now.c_lflag, session.before.c_lflag);
	assert_int_equal(now.c_iflag, session.before.c_iflag);
	assert_int_equal(now.c_oflag, session.before.c_oflag);
	assert_memory_equal(now.c_cc, session.before.c_cc, sizeof now.c_cc);
	assert_false(session.alternate);
}

static int finish(void **state)
{
	(void)state;
	if (session.child > 0 && waitpid(session.child, NULL, WNOHANG) == 0) {
		kill(session.child, SIGKILL);
		waitpid(session.child, NULL, 0);
	}
	if (session.master > 0)
		close(session.master);
	if (session.slave > 0)
		close(session.slave);
	if (session.vterm)
		vterm_free(session.vterm);
	session.vterm = NULL;
	return 0;
}

static const char *const played[] = {"--play", NULL};
static const char *const streaming[] = {"--set", "pace=12", "--set", "temp=0", NULL};

static void test_keys(void **state)
{
	(void)state;
	start(played);
	until("3 budgets");
	assert_true(session.alternate);
	send_keys("\033[15~"); // F5
	until("small writes from the next turn on");
	send_keys("\0333"); // Alt-3
	until("large writes from the next turn on");
	send_keys("49 - 88\r");
	until("49 - 88 = -39.");
	send_keys("\033:"); // Esc and a colon in one write
	until("> :");
	send_keys("view chat\r");
	until("i types, : commands");
	send_keys("?");
	until("KEYS");
	send_keys("q");
	until_not("KEYS");
	send_keys("iab\033[Dx\033[C\177"); // Left and Right by their sequences, Backspace
	until("> ax ");
	send_keys("\001\013"); // Ctrl-A Ctrl-K of readline
	until_not("> ax");
	send_keys("\033[A"); // Up: the command is in the history
	until("> :view chat");
}

/* An entry of two lines comes back from the file as one. */
static void test_history(void **state)
{
	char folder[] = "/tmp/elastiscope-test-XXXXXX", file[128];
	(void)state;
	assert_non_null(mkdtemp(folder));
	const char *before = getenv("XDG_STATE_HOME");
	char *kept = before ? strdup(before) : NULL;
	setenv("XDG_STATE_HOME", folder, 1);
	start(played);
	until("3 budgets");
	send_keys("one\033\rtwo\r"); // Alt-Enter
	until("49 - 88 = -39.");
	send_keys("\033[A");
	until("> one");
	send_keys("\025:quit\r");
	assert_int_equal(ended(0), 0);
	finish(NULL);
	start(played);
	until("3 budgets");
	send_keys("\033[A\033[A");
	until("> one");
	until("  two");
	snprintf(file, sizeof file, "%s/elastiscope/history", folder);
	unlink(file);
	snprintf(file, sizeof file, "%s/elastiscope", folder);
	rmdir(file);
	rmdir(folder);
	if (kept)
		setenv("XDG_STATE_HOME", kept, 1);
	free(kept);
}

/* ~/.inputrc with vi keys: Esc ends the insertion first, then it goes to the view. */
static void test_vi(void **state)
{
	char file[] = "/tmp/elastiscope-test-XXXXXX";
	static const char text[] = "set editing-mode vi\n";
	(void)state;
	int fd = mkstemp(file);
	assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
	close(fd);
	setenv("INPUTRC", file, 1);
	start(played);
	until("3 budgets");
	send_keys("abc");
	until("> abc");
	send_keys("\033");
	take(200);
	send_keys("x");
	until("> ab ");
	send_keys("ic");
	until("> acb");
	send_keys("\033");
	take(200);
	send_keys("\033");
	take(200);
	send_keys("?");
	until("KEYS");
	unlink(file);
	setenv("INPUTRC", "/dev/null", 1);
}

static void test_plain_stops(void **state)
{
	(void)state;
	start((const char *const[]){"--plain", "--set", "temp=0", "--set", "pace=12", NULL});
	until("User: ");
	send_keys("Sort 5, 3, 9\r");
	until("Thinking: ");
	send_keys("\003");
	until("stopped; the text is kept");
	assert_false(session.alternate);
	send_keys("never sent\003");
	until("or Ctrl-D leaves");
	send_keys(":budget small\r"); // on a line of its own
	until("budget small");
	send_keys(":quit\r");
	assert_int_equal(ended(0), 0);
	assert_restored();
}

static void test_utf8_in_pieces(void **state)
{
	(void)state;
	start(played);
	until("3 budgets");
	send_keys("x\xe4\xbd");
	until("> x");
	send_keys("\xa0y"); // one character of three bytes in two reads
	until("> x??y");    // the second cell of a wide character is a ? here too
}

static void test_paste(void **state)
{
	(void)state;
	size_t lines = 2000, at = 0;
	char *paste = malloc(lines * 64);
	assert_non_null(paste);
	at += (size_t)sprintf(paste, "\033[200~");
	for (size_t i = 0; i < lines; i++)
		at += (size_t)sprintf(paste + at,
							  "pasted line %06zu with \001\033[31m controls, more words\r", i);
	at += (size_t)sprintf(paste + at, "the end\033[201~");
	assert_true(at > 100000);
	start(played);
	until("3 budgets");
	send_bytes(paste, at);
	until("the end");
	assert_false(shows("turn 1")); // nothing was sent by the newlines
	assert_true(shows("pasted line 001999 with"));
	send_keys("\025"); // Ctrl-U takes all of it away
	until_not("pasted");
	send_keys("\033[200~49 - 88\033[201~\r");
	until("49 - 88 = -39.");
	free(paste);
}

static void set_size(int rows, int columns)
{
	struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
	session.rows = rows;
	session.columns = columns;
	vterm_set_size(session.vterm, rows, columns);
	ioctl(session.master, TIOCSWINSZ, &size);
}

static void test_resize_while_streaming(void **state)
{
	static const int sizes[][2] = {{40, 120}, {10, 40}, {8, 30}, {30, 100}, {24, 80}};
	(void)state;
	start(streaming);
	until("3 budgets");
	send_keys("Sort 5, 3, 9\r");
	until("THINK ");
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		char tiny[32];
		set_size(sizes[i][0], sizes[i][1]);
		snprintf(tiny, sizeof tiny, "needs 40x10, has %dx%d", sizes[i][1], sizes[i][0]);
		until(sizes[i][0] < 10 ? tiny : "tok/s");
	}
	until("3, 5, 9.");
	until("IDLE");
	assert_true(shows("thought ["));
}

static void test_stop_and_quit(void **state)
{
	(void)state;
	start(streaming);
	until("3 budgets");
	send_keys("Sort 5, 3, 9\r");
	until("THINK ");
	send_keys("\003");
	until("stopped; the text is kept");
	until("IDLE");
	send_keys("\003");
	until("Quit?");
	send_keys("W"); // no answer: it is typed
	until("> W");
	assert_false(shows("Quit?"));
	send_keys("\003");
	until("Quit?");
	until_not("Quit?"); // it lapses
	send_keys("\003");
	until("Ctrl-C again within 2 s");
	until_not("Ctrl-C again within 2 s");
	send_keys("\003");
	until("Ctrl-C again within 2 s");
	send_keys("\003");
	until("Quit?");
	send_keys("y");
	int status = ended(0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_restored();
}

static void test_budget_while_streaming(void **state)
{
	(void)state;
	start(streaming);
	until("3 budgets");
	send_keys("Sort 5, 3, 9\r");
	until("THINK ");
	send_keys("\033[15~");
	until("[large>small]");
	until("IDLE");
	assert_true(shows("ls"));
}

static void test_suspend(void **state)
{
	(void)state;
	start(streaming);
	until("3 budgets");
	send_keys("Sort 5, 3, 9\r");
	until("THINK ");
	send_keys("\032");
	int status = ended(WUNTRACED);
	assert_true(WIFSTOPPED(status));
	assert_restored();
	vterm_screen_reset(session.screen, 1); // what a shell would have written over
	kill(session.child, SIGCONT);
	until("3, 5, 9.");
	assert_true(session.alternate);
	send_keys("typed again");
	until("typed again");
}

static void test_terminated(void **state)
{
	(void)state;
	start(streaming);
	until("3 budgets");
	send_keys("Sort 5, 3, 9\r");
	until("THINK ");
	kill(session.child, SIGTERM);
	int status = ended(0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGTERM);
	assert_restored();
}

static void test_crash(void **state)
{
	(void)state;
	if (getenv("ELASTISCOPE_SANITIZED"))
		skip(); // the sanitizer takes the signal
	start(played);
	until("3 budgets");
	kill(session.child, SIGSEGV);
	int status = ended(0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
	assert_restored();
}

static void test_terminal_closed(void **state)
{
	(void)state;
	start(streaming);
	until("3 budgets");
	send_keys("Sort 5, 3, 9\r");
	until("THINK ");
	close(session.master);
	session.master = -1;
	int status = ended(0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_tour(void **state)
{
	(void)state;
	start((const char *const[]){"--tour", "--set", "temp=0", NULL});
	until("Tour (any key ends it)");
	until("> Calculate 49 - 88.");
	until("THINK ");
	send_keys("x");
	until("the tour is over");
	assert_true(shows("> "));
	until("IDLE"); // what was begun goes on to its end
	assert_true(shows("49 - 88 = -39."));
}

static void test_unknown_terminal(void **state)
{
	(void)state;
	start((const char *const[]){"--play", "--term", "no-such-terminal", NULL});
	until("terminal 'no-such-terminal' is not known");
}

static void test_first_paint(void **state)
{
	(void)state;
	double begin = now_ms(), best = 1e9;
	for (int i = 0; i < 3; i++) { // the machine may be busy: the best of three
		begin = now_ms();
		start(streaming);
		until("1 Chat");
		double took = now_ms() - begin;
		best = took < best ? took : best;
		finish(NULL);
	}
	print_message("first paint after %.1f ms\n", best);
	assert_true(best < (getenv("ELASTISCOPE_SANITIZED") ? 2000 : 500));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_keys, finish),
		cmocka_unit_test_teardown(test_history, finish),
		cmocka_unit_test_teardown(test_vi, finish),
		cmocka_unit_test_teardown(test_plain_stops, finish),
		cmocka_unit_test_teardown(test_utf8_in_pieces, finish),
		cmocka_unit_test_teardown(test_paste, finish),
		cmocka_unit_test_teardown(test_resize_while_streaming, finish),
		cmocka_unit_test_teardown(test_stop_and_quit, finish),
		cmocka_unit_test_teardown(test_budget_while_streaming, finish),
		cmocka_unit_test_teardown(test_suspend, finish),
		cmocka_unit_test_teardown(test_terminated, finish),
		cmocka_unit_test_teardown(test_crash, finish),
		cmocka_unit_test_teardown(test_terminal_closed, finish),
		cmocka_unit_test_teardown(test_tour, finish),
		cmocka_unit_test_teardown(test_unknown_terminal, finish),
		cmocka_unit_test_teardown(test_first_paint, finish),
	};
	if (!getenv("DRIVE")) {
		fprintf(stderr, "DRIVE must name the program\n");
		return 1;
	}
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
