/*
 * sentry/tty/ldisc.c - N_TTY: canonical editing, echo, signals, flow control, output processing.
 *
 * Follows drivers/tty/n_tty.c: the read buffer is a ring with three free-running marks, read_tail <= canon_head <= read_head;
 * [read_tail, canon_head) are whole lines whose ends are set in `flags`, [canon_head, read_head) is the line being edited. An
 * end-of-file character is stored as NUL with its flag set. Linux defers echoes to a buffer; here they are
 * processed at once, and dropped when nobody reads the master for TTY_OUT_HARD bytes.
 *
 * Cannot do: parity marking (a pty has no line to err on), XTABS-style delays, other disciplines.
 */
#include <signal.h>
#include <string.h>

#include "sentry/tty/internal.h"

#define DISABLED_CHAR 0

#define I_(t, f) ((t)->termios.c_iflag & (f))
#define O_(t, f) ((t)->termios.c_oflag & (f))
#define L_(t, f) ((t)->termios.c_lflag & (f))
#define CC(t, i) ((t)->termios.c_cc[i])

void tty_default_termios(struct ktermios *k)
{
	memset(k, 0, sizeof(*k));
	k->c_iflag = ICRNL | IXON;
	k->c_oflag = OPOST | ONLCR;
	k->c_cflag = B38400 | CS8 | CREAD;
	k->c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
	memcpy(k->c_cc, "\003\034\177\025\004\0\1\0\021\023\032\0\022\017\027\026\0", 17);
	k->c_ispeed = k->c_ospeed = 38400;
}

void ldisc_init(struct tty *t)
{
	memset(&t->ld, 0, sizeof(t->ld));
	t->ld.icanon = L_(t, ICANON);
}

static uint8_t ld_at(const struct ldisc *ld, uint32_t i)
{
	return ld->buf[i & (LDISC_BUF - 1)];
}

static bool ld_flag(const struct ldisc *ld, uint32_t i)
{
	i &= LDISC_BUF - 1;
	return ld->flags[i / 64] >> (i % 64) & 1;
}

static void ld_set_flag(struct ldisc *ld, uint32_t i, bool on)
{
	i &= LDISC_BUF - 1;
	if (on)
		ld->flags[i / 64] |= 1ull << (i % 64);
	else
		ld->flags[i / 64] &= ~(1ull << (i % 64));
}

static void ld_put(struct ldisc *ld, uint8_t c)
{
	ld->buf[ld->read_head++ & (LDISC_BUF - 1)] = c;
}

static bool is_control(uint8_t c)
{
	return c < 32 || c == 127;
}

/* Characters are Latin-1 to the kernel (lib/ctype.c). */
static bool is_upper(uint8_t c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 0xc0 && c <= 0xde && c != 0xd7);
}

static bool is_lower(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 0xdf && c != 0xf7);
}

static bool is_alnum(uint8_t c)
{
	return is_upper(c) || is_lower(c) || (c >= '0' && c <= '9');
}

static bool is_continuation(const struct tty *t, uint8_t c)
{
	return I_(t, IUTF8) && (c & 0xc0) == 0x80;
}

/* ---- output ---- */

static void out_put(struct tty *t, uint8_t c)
{
	if (ring_room(&t->out))
		ring_put(&t->out, c);
}

/* One character with output processing (do_output_char). Pre: room for 8. */
static void out_char(struct tty *t, uint8_t c)
{
	struct ldisc *ld = &t->ld;
	uint32_t spaces;

	if (!O_(t, OPOST)) {
		out_put(t, c);
		return;
	}
	switch (c) {
	case '\n':
		if (O_(t, ONLRET))
			ld->column = 0;
		if (O_(t, ONLCR)) {
			ld->canon_column = ld->column = 0;
			out_put(t, '\r');
			out_put(t, '\n');
			return;
		}
		ld->canon_column = ld->column;
		break;
	case '\r':
		if (O_(t, ONOCR) && ld->column == 0)
			return;
		if (O_(t, OCRNL)) {
			c = '\n';
			if (O_(t, ONLRET))
				ld->canon_column = ld->column = 0;
			break;
		}
		ld->canon_column = ld->column = 0;
		break;
	case '\t':
		spaces = 8 - (ld->column & 7);
		ld->column += spaces;
		if (O_(t, TABDLY) == XTABS) {
			while (spaces--)
				out_put(t, ' ');
			return;
		}
		break;
	case '\b':
		if (ld->column > 0)
			ld->column--;
		break;
	default:
		if (!is_control(c)) {
			if (O_(t, OLCUC))
				c = is_lower(c) ? (uint8_t)(c - 32) : c;
			if (!is_continuation(t, c))
				ld->column++;
		}
	}
	out_put(t, c);
}

size_t ldisc_write(struct tty *t, const uint8_t *data, size_t size)
{
	size_t i;

	if (t->stopped || t->tco_stopped)
		return 0;
	for (i = 0; i < size && ring_used(&t->out) + 8 <= TTY_OUT_SOFT; i++)
		out_char(t, data[i]);
	return i;
}

/* ---- echo ---- */

static void echo_raw(struct tty *t, uint8_t c)
{
	if (ring_room(&t->out) >= 8)
		out_char(t, c);
}

static void echo_char(struct tty *t, uint8_t c)
{
	if (L_(t, ECHOCTL) && is_control(c) && c != '\t') {
		if (ring_room(&t->out) < 8)
			return;
		out_put(t, '^');
		out_put(t, c ^ 0100);
		t->ld.column += 2;
	} else {
		echo_raw(t, c);
	}
}

static void finish_erasing(struct tty *t)
{
	if (t->ld.erasing) {
		echo_raw(t, '/');
		t->ld.erasing = false;
	}
}

static void echo_back_space_back(struct tty *t)
{
	echo_raw(t, '\b');
	echo_raw(t, ' ');
	echo_raw(t, '\b');
}

/* Goes back over a tab: its width follows from what stands before it since the line's start or the tab before. */
static void echo_erase_tab(struct tty *t)
{
	struct ldisc *ld = &t->ld;
	uint32_t chars = 0, back;
	bool after_tab = false;

	for (uint32_t i = ld->read_head; i != ld->canon_head && !after_tab;) {
		uint8_t c = ld_at(ld, --i);

		if (c == '\t')
			after_tab = true;
		else if (is_control(c))
			chars += L_(t, ECHOCTL) ? 2 : 0;
		else if (!is_continuation(t, c))
			chars++;
	}
	if (!after_tab)
		chars += ld->canon_column;
	for (back = 8 - (chars & 7); back; back--) {
		if (ring_room(&t->out))
			out_put(t, '\b');
		if (ld->column > 0)
			ld->column--;
	}
}

enum erase_kind { ERASE_CHAR, ERASE_WORD, ERASE_LINE };

/* Echo of one erased character; c is its first byte, [from, from + cnt) where it stood. */
static void echo_erased(struct tty *t, enum erase_kind kind, uint8_t c, uint32_t from, uint32_t cnt)
{
	if (L_(t, ECHOPRT)) {
		if (!t->ld.erasing) {
			echo_raw(t, '\\');
			t->ld.erasing = true;
		}
		echo_char(t, c);
		for (uint32_t i = 1; i < cnt; i++)
			echo_raw(t, ld_at(&t->ld, from + i));
	} else if (kind == ERASE_CHAR && !L_(t, ECHOE)) {
		echo_char(t, CC(t, VERASE));
	} else if (c == '\t') {
		echo_erase_tab(t);
	} else {
		if (is_control(c) && L_(t, ECHOCTL))
			echo_back_space_back(t);
		if (!is_control(c) || L_(t, ECHOCTL))
			echo_back_space_back(t);
	}
}

static void eraser(struct tty *t, enum erase_kind kind)
{
	struct ldisc *ld = &t->ld;
	bool seen_alnum = false;

	if (ld->read_head == ld->canon_head)
		return;
	if (kind == ERASE_LINE) {
		if (!L_(t, ECHO)) {
			ld->read_head = ld->canon_head;
			return;
		}
		if (!L_(t, ECHOK) || !L_(t, ECHOKE) || !L_(t, ECHOE)) {
			ld->read_head = ld->canon_head;
			finish_erasing(t);
			echo_char(t, CC(t, VKILL));
			if (L_(t, ECHOK))
				echo_raw(t, '\n');
			return;
		}
	}
	while (ld->read_head != ld->canon_head) {
		uint32_t head = ld->read_head, cnt;
		uint8_t c;

		do
			c = ld_at(ld, --head);
		while (is_continuation(t, c) && head != ld->canon_head);
		if (is_continuation(t, c))
			break; /* never half a character */
		if (kind == ERASE_WORD) {
			if (is_alnum(c) || c == '_')
				seen_alnum = true;
			else if (seen_alnum)
				break;
		}
		cnt = ld->read_head - head;
		ld->read_head = head;
		if (L_(t, ECHO))
			echo_erased(t, kind, c, head, cnt);
		if (kind == ERASE_CHAR)
			break;
	}
	if (ld->read_head == ld->canon_head && L_(t, ECHO))
		finish_erasing(t);
}

/* ---- input ---- */

void tty_start(struct tty *t)
{
	if (!t->stopped || t->tco_stopped)
		return;
	t->stopped = false;
	if (t->packet) {
		t->packet_status &= (uint8_t)~TIOCPKT_STOP;
		t->packet_status |= TIOCPKT_START;
		wait_queue_wake(&t->master_wait, POLLIN | POLLRDNORM | POLLPRI);
	}
	wait_queue_wake(&t->wait, POLLOUT | POLLWRNORM);
}

void tty_stop(struct tty *t)
{
	if (t->stopped)
		return;
	t->stopped = true;
	if (t->packet) {
		t->packet_status &= (uint8_t)~TIOCPKT_START;
		t->packet_status |= TIOCPKT_STOP;
		wait_queue_wake(&t->master_wait, POLLIN | POLLRDNORM | POLLPRI);
	}
}

static void wake_readers(struct tty *t)
{
	wait_queue_wake(&t->wait, POLLIN | POLLRDNORM);
}

void ldisc_flush_input(struct tty *t)
{
	struct ldisc *ld = &t->ld;

	ld->read_head = ld->canon_head = ld->read_tail = 0;
	memset(ld->flags, 0, sizeof(ld->flags));
	ld->erasing = false;
	ld->lnext = false;
	if (t->packet) {
		t->packet_status |= TIOCPKT_FLUSHREAD;
		wait_queue_wake(&t->master_wait, POLLIN | POLLRDNORM | POLLPRI);
	}
	wait_queue_wake(&t->master_wait, POLLOUT | POLLWRNORM);
}

/* On Linux what the master's own buffer has taken is out of reach; so the first bytes stay here too. */
void ldisc_flush_output(struct tty *t)
{
	if (ring_used(&t->out) > LDISC_BUF - 1)
		t->out.head = t->out.tail + LDISC_BUF - 1;
	if (t->packet) {
		t->packet_status |= TIOCPKT_FLUSHWRITE;
		wait_queue_wake(&t->master_wait, POLLIN | POLLRDNORM | POLLPRI);
	}
	wait_queue_wake(&t->wait, POLLOUT | POLLWRNORM);
}

static void signal_char(struct tty *t, int signo, uint8_t c)
{
	if (!L_(t, NOFLSH)) {
		/* Linux processes echoes at the end of a batch: those before this character are dropped. */
		if (t->ld.in_batch) {
			t->out.head = t->ld.batch_out;
			t->ld.column = t->ld.batch_column;
			t->ld.canon_column = t->ld.batch_canon_column;
		}
		ldisc_flush_output(t);
		ldisc_flush_input(t);
	}
	if (t->pgrp)
		signal_send_pgrp_kernel(t->pgrp, signo);
	if (I_(t, IXON))
		tty_start(t);
	if (L_(t, ECHO))
		echo_char(t, c);
}

/* IXON and ISIG characters. True: c is used up. */
static bool receive_control(struct tty *t, uint8_t c)
{
	if (I_(t, IXON)) {
		if (c == CC(t, VSTART)) {
			tty_start(t);
			return true;
		}
		if (c == CC(t, VSTOP)) {
			tty_stop(t);
			return true;
		}
	}
	if (L_(t, ISIG)) {
		int signo = c == CC(t, VINTR)	? SIGINT
			    : c == CC(t, VQUIT) ? SIGQUIT
			    : c == CC(t, VSUSP) ? SIGTSTP
						: 0;

		if (signo) {
			signal_char(t, signo, c);
			return true;
		}
	}
	return false;
}

static void end_line(struct tty *t, uint8_t c)
{
	struct ldisc *ld = &t->ld;

	ld_set_flag(ld, ld->read_head, true);
	ld_put(ld, c);
	ld->canon_head = ld->read_head;
	wake_readers(t);
}

static void reprint(struct tty *t)
{
	struct ldisc *ld = &t->ld;

	finish_erasing(t);
	echo_char(t, CC(t, VREPRINT));
	echo_raw(t, '\n');
	for (uint32_t i = ld->canon_head; i != ld->read_head; i++)
		echo_char(t, ld_at(ld, i));
}

/* Canonical mode's editing characters and line ends. True: c is used up. */
static bool receive_canon(struct tty *t, uint8_t c)
{
	struct ldisc *ld = &t->ld;
	bool ext = L_(t, IEXTEN);

	if (c == CC(t, VERASE)) {
		eraser(t, ERASE_CHAR);
	} else if (c == CC(t, VKILL)) {
		eraser(t, ERASE_LINE);
	} else if (ext && c == CC(t, VWERASE)) {
		eraser(t, ERASE_WORD);
	} else if (ext && c == CC(t, VLNEXT)) {
		ld->lnext = true;
		if (L_(t, ECHO)) {
			finish_erasing(t);
			if (L_(t, ECHOCTL)) {
				echo_raw(t, '^');
				echo_raw(t, '\b');
			}
		}
	} else if (ext && c == CC(t, VREPRINT) && L_(t, ECHO)) {
		reprint(t);
	} else if (c == '\n') {
		if (L_(t, ECHO) || L_(t, ECHONL))
			echo_raw(t, '\n');
		end_line(t, c);
	} else if (c == CC(t, VEOF)) {
		end_line(t, DISABLED_CHAR);
	} else if (c == CC(t, VEOL) || (ext && c == CC(t, VEOL2))) {
		if (L_(t, ECHO)) {
			if (ld->canon_head == ld->read_head)
				ld->canon_column = ld->column;
			echo_char(t, c);
		}
		end_line(t, c);
	} else {
		return false;
	}
	return true;
}

/* was_cr: a newline made from a carriage return echoes as one; a bare one is an ordinary control character here. */
static void receive_plain(struct tty *t, uint8_t c, bool was_cr)
{
	struct ldisc *ld = &t->ld;

	if (L_(t, ECHO)) {
		finish_erasing(t);
		if (c == '\n' && was_cr) {
			echo_raw(t, '\n');
		} else {
			if (ld->canon_head == ld->read_head)
				ld->canon_column = ld->column;
			echo_char(t, c);
		}
	}
	if (I_(t, PARMRK) && c == 0377)
		ld_put(ld, c);
	ld_put(ld, c);
}

static void receive_char(struct tty *t, uint8_t c)
{
	bool was_cr = false;

	if (I_(t, ISTRIP))
		c &= 0x7f;
	if (I_(t, IUCLC) && L_(t, IEXTEN))
		c = is_upper(c) ? (uint8_t)(c + 32) : c;
	if (L_(t, EXTPROC)) {
		ld_put(&t->ld, c);
		return;
	}
	if (t->ld.lnext) {
		t->ld.lnext = false;
		receive_plain(t, c, false);
		return;
	}
	/* NUL is what a disabled special character is set to: never special. */
	if (c != DISABLED_CHAR && receive_control(t, c))
		return;
	if (t->stopped && !t->tco_stopped && I_(t, IXON) && I_(t, IXANY))
		tty_start(t);
	if (c == '\r') {
		if (I_(t, IGNCR))
			return;
		if (I_(t, ICRNL)) {
			c = '\n';
			was_cr = true;
		}
	} else if (c == '\n' && I_(t, INLCR)) {
		c = '\r';
	}
	if (t->ld.icanon && c != DISABLED_CHAR && receive_canon(t, c))
		return;
	receive_plain(t, c, was_cr);
}

/* How many bytes may come: a canonical buffer without a whole line never refuses, it overwrites its last byte. */
static int ld_room(struct ldisc *ld, bool parmrk)
{
	int room = (int)LDISC_BUF - (int)(ld->read_head - ld->read_tail);

	if (parmrk)
		room = (room + 2) / 3;
	room--;
	if (room <= 0) {
		bool overflow = ld->icanon && ld->canon_head == ld->read_tail;

		if (overflow && room < 0)
			ld->read_head--;
		room = overflow;
	}
	return room;
}

static void batch_begin(struct tty *t)
{
	t->ld.batch_out = t->out.head;
	t->ld.batch_column = t->ld.column;
	t->ld.batch_canon_column = t->ld.canon_column;
	t->ld.in_batch = true;
}

static size_t ldisc_feed(struct tty *t, const uint8_t *data, size_t size)
{
	size_t done = 0;

	batch_begin(t);
	while (done < size && ld_room(&t->ld, I_(t, PARMRK)) > 0)
		receive_char(t, data[done++]);
	t->ld.in_batch = false;
	if (ldisc_readable(t, true))
		wake_readers(t);
	return done;
}

void ldisc_pump(struct tty *t)
{
	uint32_t before = ring_used(&t->in);

	batch_begin(t);
	while (ring_used(&t->in) && ld_room(&t->ld, I_(t, PARMRK)) > 0)
		receive_char(t, ring_get(&t->in));
	t->ld.in_batch = false;
	if (ring_used(&t->in) != before) {
		wait_queue_wake(&t->master_wait, POLLOUT | POLLWRNORM);
		if (ldisc_readable(t, true))
			wake_readers(t);
	}
}

size_t ldisc_receive(struct tty *t, const uint8_t *data, size_t size)
{
	size_t done = 0;

	if (!ring_used(&t->in))
		done = ldisc_feed(t, data, size);
	while (done < size && ring_room(&t->in))
		ring_put(&t->in, data[done++]);
	tty_output_ready(t); /* echoes */
	return done;
}

/* ---- reading ---- */

bool ldisc_readable(const struct tty *t, bool poll)
{
	const struct ldisc *ld = &t->ld;
	uint32_t amount = 1;

	if (ld->icanon && !L_(t, EXTPROC))
		return ld->canon_head != ld->read_tail;
	if (poll && !CC(t, VTIME) && CC(t, VMIN))
		amount = CC(t, VMIN);
	return ld->read_head - ld->read_tail >= amount;
}

size_t ldisc_chars(const struct tty *t)
{
	const struct ldisc *ld = &t->ld;
	size_t n = 0;

	if (!ld->icanon || L_(t, EXTPROC))
		return ld->read_head - ld->read_tail;
	/* End-of-file marks are no characters. */
	for (uint32_t i = ld->read_tail; i != ld->canon_head; i++)
		n += !(ld_flag(ld, i) && ld_at(ld, i) == DISABLED_CHAR);
	return n;
}

static size_t read_line(struct ldisc *ld, uint8_t *data, size_t size, bool *ret_eof)
{
	size_t done = 0;

	while (done < size && ld->read_tail != ld->canon_head) {
		uint8_t c = ld_at(ld, ld->read_tail);
		bool end = ld_flag(ld, ld->read_tail);

		ld_set_flag(ld, ld->read_tail, false);
		ld->read_tail++;
		if (end && c == DISABLED_CHAR) {
			*ret_eof = done == 0;
			return done;
		}
		data[done++] = c;
		if (end)
			return done;
	}
	/* Exactly the bytes before an end-of-file mark: the mark is used up, or the next read would see an end. */
	if (done && ld->read_tail != ld->canon_head && ld_flag(ld, ld->read_tail) &&
	    ld_at(ld, ld->read_tail) == DISABLED_CHAR) {
		ld_set_flag(ld, ld->read_tail, false);
		ld->read_tail++;
	}
	return done;
}

size_t ldisc_read(struct tty *t, uint8_t *data, size_t size, bool *ret_eof)
{
	struct ldisc *ld = &t->ld;
	size_t done = 0;

	*ret_eof = false;
	if (ld->icanon && !L_(t, EXTPROC)) {
		done = read_line(ld, data, size, ret_eof);
	} else {
		while (done < size && ld->read_tail != ld->read_head) {
			data[done++] = ld_at(ld, ld->read_tail);
			ld_set_flag(ld, ld->read_tail, false);
			ld->read_tail++;
		}
		ld->canon_head = ld->read_tail;
	}
	ldisc_pump(t);
	if (t->console)
		console_pump(t);
	else
		wait_queue_wake(&t->master_wait, POLLOUT | POLLWRNORM);
	tty_output_ready(t); /* what pumped bytes echoed */
	return done;
}

/* ---- settings ---- */

static void packet_flow_change(struct tty *t, const struct ktermios *old)
{
	const struct ktermios *k = &t->termios;
	bool was = (old->c_iflag & IXON) && old->c_cc[VSTOP] == 023 && old->c_cc[VSTART] == 021;
	bool now = (k->c_iflag & IXON) && k->c_cc[VSTOP] == 023 && k->c_cc[VSTART] == 021;

	if (!t->packet)
		return;
	if (was != now) {
		t->packet_status &= (uint8_t) ~(TIOCPKT_DOSTOP | TIOCPKT_NOSTOP);
		t->packet_status |= now ? TIOCPKT_DOSTOP : TIOCPKT_NOSTOP;
	}
	if (((old->c_lflag ^ k->c_lflag) & (EXTPROC | ICANON)) && (old->c_lflag & EXTPROC))
		t->packet_status |= TIOCPKT_IOCTL;
	if (t->packet_status)
		wait_queue_wake(&t->master_wait, POLLIN | POLLRDNORM | POLLPRI);
}

void ldisc_set_termios(struct tty *t, const struct ktermios *new_)
{
	struct ktermios old = t->termios;
	struct ldisc *ld = &t->ld;

	t->termios = *new_;
	t->termios.c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
	t->termios.c_cflag |= CS8 | CREAD;
	packet_flow_change(t, &old);
	if ((old.c_lflag ^ new_->c_lflag) & (ICANON | EXTPROC)) {
		memset(ld->flags, 0, sizeof(ld->flags));
		if (!L_(t, ICANON) || ld->read_head == ld->read_tail) {
			ld->canon_head = ld->read_tail;
		} else {
			/* What was typed before counts as a line. */
			ld_set_flag(ld, ld->read_head - 1, true);
			ld->canon_head = ld->read_head;
		}
		ld->erasing = false;
		ld->lnext = false;
	}
	ld->icanon = L_(t, ICANON);
	if (!I_(t, IXON) && (old.c_iflag & IXON))
		tty_start(t);
	wait_queue_wake(&t->wait, POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
	ldisc_pump(t);
}
