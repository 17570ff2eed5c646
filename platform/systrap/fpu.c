/*
 * platform/systrap/fpu.c - contexts and where their FPU state is.
 *
 * After an event it is in the signal frame that the host's kernel wrote (XSAVE, standard format), in the area that
 * the sentry shares with the stub; the thread loads it from there when it goes on. Before a context has run on its
 * thread it is in a buffer of the context's own (none: the reset state) and is copied to the area when it starts.
 */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "platform/systrap/systrap.h"

#define FXSAVE_SIZE 512u
#define FX_FCW 0
#define FX_MXCSR 24
#define FX_SW_RESERVED 464u
#define XSAVE_BV 512
#define XSAVE_HEADER_END 576u
#define XFEATURE_FPSSE 3ull

static void reset_image(const struct systrap_platform *p, uint8_t *buf)
{
	uint16_t fcw = 0x37f;
	uint32_t mxcsr = 0x1f80;
	uint64_t bv = XFEATURE_FPSSE; /* the rest is in its initial state */

	memset(buf, 0, p->fpu_size);
	memcpy(buf + FX_FCW, &fcw, sizeof(fcw));
	memcpy(buf + FX_MXCSR, &mxcsr, sizeof(mxcsr));
	memcpy(buf + XSAVE_BV, &bv, sizeof(bv));
}

int systrap_fpu_init(struct systrap_platform *p)
{
	uint8_t fx[FXSAVE_SIZE] __attribute__((aligned(64)));
	unsigned eax, ebx, ecx, edx;
	uint32_t mask;

	/* The host's kernel has set XCR0: EBX is the size of all that it enables. */
	if (!__get_cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx) || !eax)
		return -EOPNOTSUPP;
	__asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	p->xcr0 = (uint64_t)edx << 32 | eax;
	p->fpu_size = MAX((size_t)ebx, (size_t)XSAVE_HEADER_END);
	if (p->fpu_size > AREA_FPU_SIZE)
		return -EOPNOTSUPP;
	memset(fx, 0, sizeof(fx));
	__asm__ volatile("fxsave64 %0" : "+m"(fx));
	memcpy(&mask, fx + 28, sizeof(mask));
	p->mxcsr_mask = mask ? mask : 0xffbf;
	return 0;
}

/* The state as it is now, without what the kernel keeps in the frame for itself. */
static void copy_out(struct platform_context *ctx, uint8_t *buf)
{
	struct systrap_platform *p = ctx->p;

	if (!ctx->thread || ctx->fresh) {
		if (ctx->fpu_buf)
			memcpy(buf, ctx->fpu_buf, p->fpu_size);
		else
			reset_image(p, buf);
		return;
	}
	/* fpu_va was checked when the event was read; a frame may be shorter than all that XCR0 has. */
	memset(buf, 0, p->fpu_size);
	memcpy(buf, ctx->thread->mem + (ctx->fpu_va - systrap_area_va(ctx->thread)),
	       MIN(p->fpu_size, systrap_area_va(ctx->thread) + STUB_AREA_SIZE - ctx->fpu_va));
	memset(buf + FX_SW_RESERVED, 0, FXSAVE_SIZE - FX_SW_RESERVED);
}

int systrap_context_create(struct platform *base, struct platform_context *from,
			   struct platform_context **ret_ctx)
{
	struct platform_context *ctx = calloc(1, sizeof(*ctx));

	if (!ctx)
		return -ENOMEM;
	ctx->p = systrap_of(base);
	ctx->fresh = true;
	ctx->pace.stacked_limit = SYSTRAP_STACKED_MIN;
	ctx->pace.apart_limit = SYSTRAP_APART_MIN;
	ctx->pace.spin = true; /* for its thread to come */
	/* Until it computes: one that waits for its first core is not counted as having one. */
	ctx->pace.quick = SYSTRAP_QUICK_MIN;
	ctx->pace.burst = SYSTRAP_BURST_MAX;
	if (from) {
		systrap_leave(from);
		ctx->fpu_buf = malloc(ctx->p->fpu_size);
		if (!ctx->fpu_buf) {
			free(ctx);
			return -ENOMEM;
		}
		mutex_lock(&ctx->p->bind_lock);
		copy_out(from, ctx->fpu_buf);
		mutex_unlock(&ctx->p->bind_lock);
	}
	*ret_ctx = ctx;
	return 0;
}

void systrap_context_destroy(struct platform_context *ctx)
{
	if (!ctx)
		return;
	systrap_turn_drop(ctx);
	systrap_unbind(ctx);
	free(ctx->fpu_buf);
	free(ctx);
}

size_t systrap_fpu_size(struct platform *base)
{
	return systrap_of(base)->fpu_size;
}

int systrap_fpu_get(struct platform_context *ctx, void *buf, size_t size)
{
	size_t n = MIN(size, ctx->p->fpu_size);
	uint8_t *area = malloc(ctx->p->fpu_size);

	if (!area)
		return -ENOMEM;
	systrap_leave(ctx);
	mutex_lock(&ctx->p->bind_lock);
	copy_out(ctx, area);
	mutex_unlock(&ctx->p->bind_lock);
	memcpy(buf, area, n);
	free(area);
	return (int)n;
}

/* Would XRSTOR take it? Standard format, no unknown component, no reserved bit. */
static bool image_valid(const struct systrap_platform *p, const uint8_t *buf)
{
	uint64_t header[8];
	uint32_t mxcsr;

	memcpy(&mxcsr, buf + FX_MXCSR, sizeof(mxcsr));
	memcpy(header, buf + XSAVE_BV, sizeof(header));
	if (mxcsr & ~(uint32_t)p->mxcsr_mask)
		return false;
	if (header[0] & ~p->xcr0)
		return false;
	for (unsigned i = 1; i < 8; i++)
		if (header[i])
			return false;
	return true;
}

int systrap_fpu_set(struct platform_context *ctx, const void *buf, size_t size)
{
	struct systrap_platform *p = ctx->p;
	uint64_t bv = XFEATURE_FPSSE;
	uint8_t *image;

	if (size < FXSAVE_SIZE)
		return -EINVAL;
	image = calloc(1, p->fpu_size);
	if (!image)
		return -ENOMEM;
	memcpy(image, buf, MIN(size, p->fpu_size));
	memset(image + FX_SW_RESERVED, 0, FXSAVE_SIZE - FX_SW_RESERVED);
	/* Without the header it is an FXSAVE area. */
	if (size < XSAVE_HEADER_END) {
		memset(image + XSAVE_BV, 0, XSAVE_HEADER_END - XSAVE_BV);
		memcpy(image + XSAVE_BV, &bv, sizeof(bv));
	}
	if (!image_valid(p, image)) {
		free(image);
		return -EINVAL;
	}
	mutex_lock(&p->bind_lock);
	free(ctx->fpu_buf);
	ctx->fpu_buf = image;
	ctx->fresh = true;
	mutex_unlock(&p->bind_lock);
	return 0;
}

void systrap_fpu_reset(struct platform_context *ctx)
{
	mutex_lock(&ctx->p->bind_lock);
	free(ctx->fpu_buf);
	ctx->fpu_buf = NULL;
	ctx->fresh = true;
	mutex_unlock(&ctx->p->bind_lock);
}

void systrap_fpu_detach(struct platform_context *ctx)
{
	uint8_t *buf;

	if (ctx->fresh)
		return;
	/* In a trampoline its state is in the registers; only exec and exit take a context away from there. */
	buf = ctx->held ? NULL : malloc(ctx->p->fpu_size);
	if (buf)
		copy_out(ctx, buf);
	free(ctx->fpu_buf);
	ctx->fpu_buf = buf;
	ctx->fresh = true;
}

void systrap_fpu_load(struct platform_context *ctx)
{
	struct systrap_thread *t = ctx->thread;
	uint8_t *image = t->mem + AREA_FPU;

	if (likely(!ctx->fresh)) {
		atomic_store_explicit(mb_set_fpu(t), ctx->fpu_va, memory_order_relaxed);
		atomic_store_explicit(mb_set_fpu_mask(t), ctx->fpu_mask, memory_order_relaxed);
		return;
	}
	if (ctx->fpu_buf)
		memcpy(image, ctx->fpu_buf, ctx->p->fpu_size);
	else
		reset_image(ctx->p, image);
	atomic_store_explicit(mb_set_fpu(t), systrap_area_va(t) + AREA_FPU, memory_order_relaxed);
	atomic_store_explicit(mb_set_fpu_mask(t), ctx->p->xcr0, memory_order_relaxed);
}
