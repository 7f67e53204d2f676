/*
 * The program inside the lab's images: one static file of a few kilobytes, no
 * libc, so that an image can be built offline and runs on an empty root.
 *
 * The tool is named by argv[0] (a link `/bin/sleep`) or else by argv[1].
 * Several tools run in turn with `do TOOL ARGS , TOOL ARGS`.
 * As pid 1 nothing kills it by default, so tools that wait do so with TERM and
 * INT blocked and fetched; `stubborn` shows what a program without that does.
 */
typedef unsigned long ulong;
typedef long slong;

#if defined(__x86_64__)
enum {
	SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_mmap = 9, SYS_rt_sigprocmask = 14,
	SYS_getpid = 39, SYS_socket = 41, SYS_connect = 42, SYS_shutdown = 48, SYS_bind = 49, SYS_listen = 50,
	SYS_setsockopt = 54, SYS_kill = 62, SYS_uname = 63, SYS_getuid = 102, SYS_getgid = 104,
	SYS_geteuid = 107, SYS_getegid = 108, SYS_getgroups = 115, SYS_rt_sigtimedwait = 128,
	SYS_getdents64 = 217, SYS_exit_group = 231, SYS_openat = 257, SYS_faccessat = 269,
	SYS_ppoll = 271, SYS_accept4 = 288, SYS_signalfd4 = 289
};
static slong sys(slong n, slong a, slong b, slong c, slong d, slong e, slong f) {
	register slong r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	slong ret;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		: "rcx", "r11", "memory");
	return ret;
}
__asm__(".globl _start\n_start:\n xor %rbp,%rbp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n hlt\n");
enum { O_DIRECTORY = 0200000 };
#elif defined(__aarch64__)
enum {
	SYS_faccessat = 48, SYS_openat = 56, SYS_close = 57, SYS_getdents64 = 61, SYS_read = 63,
	SYS_write = 64, SYS_ppoll = 73, SYS_signalfd4 = 74, SYS_exit_group = 94, SYS_kill = 129,
	SYS_rt_sigprocmask = 135, SYS_rt_sigtimedwait = 137, SYS_getgroups = 158, SYS_uname = 160,
	SYS_getpid = 172, SYS_getuid = 174, SYS_geteuid = 175, SYS_getgid = 176, SYS_getegid = 177,
	SYS_socket = 198, SYS_bind = 200, SYS_listen = 201, SYS_connect = 203, SYS_setsockopt = 208,
	SYS_shutdown = 210, SYS_mmap = 222, SYS_accept4 = 242
};
static slong sys(slong n, slong a, slong b, slong c, slong d, slong e, slong f) {
	register slong x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
		x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
__asm__(".globl _start\n_start:\n mov x29,#0\n mov x30,#0\n mov x0,sp\n and sp,x0,#-16\n bl begin\n brk #1\n");
enum { O_DIRECTORY = 040000 };
#else
#error "the guest knows x86_64 and aarch64"
#endif

enum { AT_FDCWD = -100, O_WRONLY = 1, O_CREAT = 0100, O_TRUNC = 01000, O_CLOEXEC = 02000000 };
enum { SIGINT = 2, SIGSEGV = 11, SIGTERM = 15 };
static const ulong STOP_SIGNALS = (1UL << (SIGINT - 1)) | (1UL << (SIGTERM - 1));

static char **environment;

void *memset(void *to, int with, ulong n) {
	char *p = to;
	while (n--) { *p++ = (char)with; __asm__ volatile("" ::: "memory"); }
	return to;
}
void *memcpy(void *to, const void *from, ulong n) {
	char *p = to; const char *q = from;
	while (n--) { *p++ = *q++; __asm__ volatile("" ::: "memory"); }
	return to;
}
static ulong length(const char *s) { ulong n = 0; while (s[n]) n++; return n; }
static int same(const char *a, const char *b) { while (*a && *a == *b) a++, b++; return *a == *b; }
static void put_bytes(int fd, const char *s, ulong n) {
	while (n) {
		slong w = sys(SYS_write, fd, (slong)s, (slong)n, 0, 0, 0);
		if (w == -4) continue;
		if (w <= 0) return;
		s += w; n -= (ulong)w;
	}
}
static void put(int fd, const char *s) { put_bytes(fd, s, length(s)); }
static void put_number(int fd, ulong v) {
	char b[24]; int i = 24;
	do b[--i] = (char)('0' + v % 10); while (v /= 10);
	put_bytes(fd, b + i, (ulong)(24 - i));
}
/* A decimal number with an optional k, m or g (powers of 1024). */
static ulong number(const char *s) {
	ulong v = 0;
	if (!s) return 0;
	while (*s >= '0' && *s <= '9') v = v * 10 + (ulong)(*s++ - '0');
	if (*s == 'k' || *s == 'K') v <<= 10;
	if (*s == 'm' || *s == 'M') v <<= 20;
	if (*s == 'g' || *s == 'G') v <<= 30;
	return v;
}
static int fail(const char *tool, const char *what, slong error) {
	put(2, tool); put(2, ": "); put(2, what); put(2, ": error "); put_number(2, (ulong)(error < 0 ? -error : error)); put(2, "\n");
	return 1;
}
static void hold_stop_signals(void) {
	sys(SYS_rt_sigprocmask, 0, (slong)&STOP_SIGNALS, 0, 8, 0, 0);
}
/* Waits for TERM or INT; with seconds >= 0 at most so long. 1 when stopped by a signal. */
static int wait_stop(slong seconds) {
	slong t[2] = { seconds, 0 };
	hold_stop_signals();
	for (;;) {
		slong r = sys(SYS_rt_sigtimedwait, (slong)&STOP_SIGNALS, 0, seconds < 0 ? 0 : (slong)t, 8, 0, 0);
		if (r == -4) continue;
		return r > 0;
	}
}

static int tool_hello(char **a) {
	hold_stop_signals();
	if (!*a) put(1, "hello");
	for (; *a; a++) { put(1, *a); if (a[1]) put(1, " "); }
	put(1, "\n");
	wait_stop(-1);
	return 0;
}
static int echo_to(int fd, char **a) {
	for (; *a; a++) { put(fd, *a); if (a[1]) put(fd, " "); }
	put(fd, "\n");
	return 0;
}
static int tool_echo(char **a) { return echo_to(1, a); }
static int tool_stderr(char **a) { return echo_to(2, a); }
static int tool_sleep(char **a) {
	return wait_stop(*a && !same(*a, "infinity") ? (slong)number(*a) : -1) ? 128 + SIGTERM : 0;
}
static int tool_stubborn(char **a) {
	slong seconds = *a ? (slong)number(*a) : 3600;
	while (seconds-- > 0) { if (wait_stop(1)) seconds++; }
	return 0;
}
static int tool_exit(char **a) { return (int)number(*a); }
static int tool_true(char **a) { (void)a; return 0; }
static int tool_false(char **a) { (void)a; return 1; }
static int tool_crash(char **a) { (void)a; int *volatile nowhere = (int *)8; *nowhere = 1; return 1; }
static int copy(int from, int to) {
	char b[4096];
	for (;;) {
		slong r = sys(SYS_read, from, (slong)b, sizeof b, 0, 0, 0);
		if (r == -4) continue;
		if (r <= 0) return (int)r;
		put_bytes(to, b, (ulong)r);
	}
}
static slong open_file(const char *path, int flags) { return sys(SYS_openat, AT_FDCWD, (slong)path, flags | O_CLOEXEC, 0644, 0, 0); }
static int tool_cat(char **a) {
	int code = 0;
	if (!*a) return copy(0, 1) ? 1 : 0;
	for (; *a; a++) {
		slong fd = open_file(*a, 0);
		if (fd < 0) { code = fail("cat", *a, fd); continue; }
		slong r = copy((int)fd, 1);
		if (r < 0) code = fail("cat", *a, r);
		sys(SYS_close, fd, 0, 0, 0, 0, 0);
	}
	return code;
}
static int tool_env(char **a) {
	(void)a;
	for (char **e = environment; *e; e++) { put(1, *e); put(1, "\n"); }
	return 0;
}
static int tool_id(char **a) {
	unsigned groups[64]; (void)a;
	slong n = sys(SYS_getgroups, 64, (slong)groups, 0, 0, 0, 0);
	put(1, "uid="); put_number(1, (ulong)sys(SYS_geteuid, 0, 0, 0, 0, 0, 0));
	put(1, " gid="); put_number(1, (ulong)sys(SYS_getegid, 0, 0, 0, 0, 0, 0));
	put(1, " groups=");
	for (slong i = 0; i < n; i++) { if (i) put(1, ","); put_number(1, groups[i]); }
	put(1, "\n");
	return 0;
}
static int tool_hostname(char **a) {
	char u[6 * 65]; (void)a;
	sys(SYS_uname, (slong)u, 0, 0, 0, 0, 0);
	put(1, u + 65); put(1, "\n");
	return 0;
}
static int tool_ls(char **a) {
	char b[2048];
	const char *path = *a ? *a : ".";
	slong fd = open_file(path, O_DIRECTORY);
	if (fd < 0) return fail("ls", path, fd);
	for (;;) {
		slong n = sys(SYS_getdents64, fd, (slong)b, sizeof b, 0, 0, 0);
		if (n < 0) return fail("ls", path, n);
		if (!n) break;
		for (slong at = 0; at < n; at += *(unsigned short *)(b + at + 16)) {
			char *name = b + at + 19;
			if (!same(name, ".") && !same(name, "..")) { put(1, name); put(1, "\n"); }
		}
	}
	sys(SYS_close, fd, 0, 0, 0, 0, 0);
	return 0;
}
static int tool_touch(char **a) {
	for (; *a; a++) {
		slong fd = open_file(*a, O_WRONLY | O_CREAT);
		if (fd < 0) return fail("touch", *a, fd);
		sys(SYS_close, fd, 0, 0, 0, 0, 0);
	}
	return 0;
}
static int tool_write(char **a) {
	if (!*a) return 2;
	slong fd = open_file(*a, O_WRONLY | O_CREAT | O_TRUNC);
	if (fd < 0) return fail("write", *a, fd);
	echo_to((int)fd, a + 1);
	sys(SYS_close, fd, 0, 0, 0, 0, 0);
	return 0;
}
/* BYTES of lines of 64 characters on stdout. */
static int tool_flood(char **a) {
	char line[64];
	memset(line, 'x', 63); line[63] = '\n';
	for (ulong left = number(*a); left;) {
		ulong n = left < 64 ? left : 64;
		if (n < 64) line[n - 1] = '\n';
		put_bytes(1, line, n); left -= n;
	}
	return 0;
}
/* Takes BYTES of memory, touches every page, and keeps them. */
static int tool_alloc(char **a) {
	ulong n = number(*a);
	char *p = (char *)sys(SYS_mmap, 0, (slong)n, 3, 0x22, -1, 0);
	if ((ulong)p > -4096UL) return fail("alloc", "mmap", (slong)p);
	for (ulong i = 0; i < n; i += 4096) ((volatile char *)p)[i] = 1;
	put(1, "allocated\n");
	wait_stop(-1);
	return 0;
}
static void address(unsigned char *out, ulong ip_be, ulong port) {
	memset(out, 0, 16);
	out[0] = 2; out[2] = (unsigned char)(port >> 8); out[3] = (unsigned char)port;
	for (int i = 0; i < 4; i++) out[4 + i] = (unsigned char)(ip_be >> (24 - 8 * i));
}
static void answer(int fd) {
	char b[2048]; ulong n = 0;
	while (n < sizeof b - 1) {
		slong r = sys(SYS_read, fd, (slong)(b + n), (slong)(sizeof b - 1 - n), 0, 0, 0);
		if (r <= 0) break;
		n += (ulong)r; b[n] = 0;
		if (n >= 4 && same(b + n - 4, "\r\n\r\n")) break;
	}
	int bad = sys(SYS_faccessat, AT_FDCWD, (slong)"/unhealthy", 0, 0, 0, 0) == 0;
	ulong path = 0; while (path < n && b[path] != ' ') path++;
	if (path + 6 <= n) { char *p = b + path + 1; if (p[0] == '/' && p[1] == 'f' && p[2] == 'a' && p[3] == 'i' && p[4] == 'l') bad = 1; }
	put(fd, bad ? "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10\r\nConnection: close\r\n\r\nunhealthy\n"
		: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
	sys(SYS_shutdown, fd, 1, 0, 0, 0, 0);
	sys(SYS_close, fd, 0, 0, 0, 0, 0);
}
/* Answers every request 200 `ok`; 503 for /fail... or while the file /unhealthy exists. */
static int tool_http(char **a) {
	unsigned char at[16]; int one = 1;
	ulong port = *a ? number(*a) : 80;
	hold_stop_signals();
	slong stop = sys(SYS_signalfd4, -1, (slong)&STOP_SIGNALS, 8, O_CLOEXEC, 0, 0);
	slong fd = sys(SYS_socket, 2, 1 | O_CLOEXEC, 0, 0, 0, 0);
	if (fd < 0) return fail("http", "socket", fd);
	sys(SYS_setsockopt, fd, 1, 2, (slong)&one, 4, 0);
	address(at, 0, port);
	slong r = sys(SYS_bind, fd, (slong)at, 16, 0, 0, 0);
	if (r < 0) return fail("http", "bind", r);
	r = sys(SYS_listen, fd, 16, 0, 0, 0, 0);
	if (r < 0) return fail("http", "listen", r);
	put(1, "listening on "); put_number(1, port); put(1, "\n");
	for (;;) {
		struct { int fd; short events, revents; } p[2] = { { (int)fd, 1, 0 }, { (int)stop, 1, 0 } };
		sys(SYS_ppoll, (slong)p, 2, 0, 0, 8, 0);
		if (p[1].revents) return 0;
		if (p[0].revents) {
			slong peer = sys(SYS_accept4, fd, 0, 0, O_CLOEXEC, 0, 0);
			if (peer >= 0) answer((int)peer);
		}
	}
}
/* get IPV4 PORT [PATH]: prints the whole answer; exits 0 on HTTP 200. */
static int tool_get(char **a) {
	unsigned char at[16]; char b[4096]; ulong ip = 0; int ok = 0, first = 1;
	if (!a[0] || !a[1]) return 2;
	for (const char *s = a[0]; *s;) {
		ip = ip << 8 | (number(s) & 255);
		while (*s && *s != '.') s++;
		if (*s) s++;
	}
	slong fd = sys(SYS_socket, 2, 1 | O_CLOEXEC, 0, 0, 0, 0);
	address(at, ip, number(a[1]));
	slong r = sys(SYS_connect, fd, (slong)at, 16, 0, 0, 0);
	if (r < 0) return fail("get", a[0], r);
	put((int)fd, "GET "); put((int)fd, a[2] ? a[2] : "/"); put((int)fd, " HTTP/1.1\r\nHost: "); put((int)fd, a[0]);
	put((int)fd, "\r\nConnection: close\r\n\r\n");
	while ((r = sys(SYS_read, fd, (slong)b, sizeof b, 0, 0, 0)) > 0) {
		if (first) { ok = r > 12 && b[9] == '2' && b[10] == '0' && b[11] == '0'; first = 0; }
		put_bytes(1, b, (ulong)r);
	}
	return ok ? 0 : 1;
}
/* Succeeds when the file exists: an exec probe. */
static int tool_exists(char **a) { return *a && sys(SYS_faccessat, AT_FDCWD, (slong)*a, 0, 0, 0, 0) == 0 ? 0 : 1; }

typedef struct { const char *name; int (*run)(char **); } Tool;
static int tool_do(char **a);
static const Tool *find(const char *path) {
	static const Tool tools[] = {
		{ "hello", tool_hello }, { "echo", tool_echo }, { "stderr", tool_stderr }, { "sleep", tool_sleep },
		{ "stubborn", tool_stubborn }, { "exit", tool_exit }, { "cat", tool_cat }, { "env", tool_env },
		{ "id", tool_id }, { "hostname", tool_hostname }, { "ls", tool_ls }, { "touch", tool_touch },
		{ "write", tool_write }, { "flood", tool_flood }, { "alloc", tool_alloc }, { "http", tool_http },
		{ "get", tool_get }, { "exists", tool_exists }, { "true", tool_true }, { "false", tool_false },
		{ "crash", tool_crash }, { "do", tool_do },
	};
	const char *name = path;
	for (const char *s = path; *s; s++) if (*s == '/') name = s + 1;
	for (ulong i = 0; i < sizeof tools / sizeof *tools; i++) if (same(tools[i].name, name)) return &tools[i];
	return 0;
}
static int tool_do(char **a) {
	int code = 0;
	while (*a) {
		char **end = a;
		while (*end && !same(*end, ",")) end++;
		int more = *end != 0;
		*end = 0;
		const Tool *t = *a ? find(*a) : 0;
		if (!t) { put(2, "guest: unknown tool\n"); return 127; }
		code = t->run(a + 1);
		if (code) return code;
		a = more ? end + 1 : end;
	}
	return code;
}
__attribute__((used, noreturn)) void begin(slong *stack) {
	slong count = stack[0];
	char **arguments = (char **)(stack + 1);
	environment = arguments + count + 1;
	const Tool *t = count > 0 ? find(arguments[0]) : 0;
	char **rest = arguments + 1;
	if (!t && count > 1) { t = find(arguments[1]); rest = arguments + 2; }
	int code = 127;
	if (t) code = t->run(rest);
	else put(2, "guest: no such tool\n");
	for (;;) sys(SYS_exit_group, code, 0, 0, 0, 0, 0);
}
