/*
 * platform/kvm/fpu.c - contexts and where their FPU state is.
 *
 * It stays in the vCPU that the context's thread owns. KVM moves it (GET_XSAVE2, SET_XSAVE) only when
 * somebody asks for it, when another context wants that vCPU, or when the context's thread has another one.
 * A vCPU's contents belong to `fpu_owner`; a context that does not own its vCPU's contents loads its own
 * before it runs, so it never sees anybody else's. Ownership changes under the platform lock.
 */
#include <stdlib.h>
#include <string.h>

#include "platform/kvm/kvm.h"

#define FXSAVE_SIZE 512u
#define FX_FCW 0
#define FX_MXCSR 24
#define XSAVE_BV 512
#define XSAVE_HEADER_END 576u
#define XFEATURE_FPSSE 3ull

static void fpu_reset_area(uint8_t *buf, size_t size)
{
	uint16_t fcw = 0x37f;
	uint32_t mxcsr = 0x1f80;
	uint64_t bv = XFEATURE_FPSSE; /* the rest is in its initial state */

	memset(buf, 0, size);
	memcpy(buf + FX_FCW, &fcw, sizeof(fcw));
	memcpy(buf + FX_MXCSR, &mxcsr, sizeof(mxcsr));
	memcpy(buf + XSAVE_BV, &bv, sizeof(bv));
}

int kvm_fpu_init(struct kvm_platform *p)
{
	p->fpu_reset_buf = calloc(1, p->xsave_size);
	if (!p->fpu_reset_buf)
		return -ENOMEM;
	fpu_reset_area(p->fpu_reset_buf, p->xsave_size);
	return 0;
}

static int vcpu_get_fpu(struct kvm_vcpu *v, void *buf)
{
	return kvm_ioctl(
		v->fd, v->p->xsave_size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE,
		buf);
}

static int vcpu_set_fpu(struct kvm_vcpu *v, const void *buf)
{
	return kvm_ioctl(v->fd, KVM_SET_XSAVE, (void *)buf);
}

/* Moves ctx's state from the vCPU that has it into ctx's buffer. Platform lock held. */
static int fpu_fetch_locked(struct platform_context *ctx)
{
	struct kvm_vcpu *v = ctx->fpu_vcpu;
	int err;

	if (!ctx->fpu_buf)
		ctx->fpu_buf = malloc(ctx->p->xsave_size);
	if (!ctx->fpu_buf)
		return -ENOMEM;
	err = vcpu_get_fpu(v, ctx->fpu_buf);
	if (err)
		return err;
	ctx->fpu_vcpu = NULL;
	atomic_store_explicit(&v->fpu_owner, NULL, memory_order_relaxed);
	return 0;
}

int kvm_fpu_load(struct kvm_vcpu *v, struct platform_context *ctx)
{
	struct kvm_platform *p = v->p;
	struct platform_context *old;
	int err = 0;

	if (likely(atomic_load_explicit(&v->fpu_owner, memory_order_relaxed) == ctx))
		return 0;
	mutex_lock(&p->lock);
	old = atomic_load_explicit(&v->fpu_owner, memory_order_relaxed);
	if (old)
		err = fpu_fetch_locked(old);
	if (!err && ctx->fpu_vcpu)
		err = fpu_fetch_locked(ctx);
	if (!err)
		err = vcpu_set_fpu(v, ctx->fpu_buf ? ctx->fpu_buf : p->fpu_reset_buf);
	if (!err) {
		ctx->fpu_vcpu = v;
		atomic_store_explicit(&v->fpu_owner, ctx, memory_order_relaxed);
		KVM_STAT_ADD(p, fpu_loads, 1);
		/* A shared vCPU gives the state back after the turn; others seldom or never. */
		if (!v->shared) {
			free(ctx->fpu_buf);
			ctx->fpu_buf = NULL;
		}
	}
	mutex_unlock(&p->lock);
	return err;
}

/* A copy of ctx's state as it is now. The calling thread owns ctx. Return: 0, -errno. */
static int fpu_copy_out(struct platform_context *ctx, void *buf)
{
	struct kvm_platform *p = ctx->p;
	int err = 0;

	mutex_lock(&p->lock);
	if (ctx->fpu_vcpu)
		err = vcpu_get_fpu(ctx->fpu_vcpu, buf);
	else
		memcpy(buf, ctx->fpu_buf ? ctx->fpu_buf : p->fpu_reset_buf, p->xsave_size);
	mutex_unlock(&p->lock);
	return err;
}

int kvm_context_create(struct platform *base, struct platform_context *from,
		       struct platform_context **ret_ctx)
{
	struct kvm_platform *p = kvm_platform_of(base);
	struct platform_context *ctx = calloc(1, sizeof(*ctx));
	int err;

	if (!ctx)
		return -ENOMEM;
	ctx->p = p;
	/* Where a vCPU's change of threads waits for a grace period, a hand-off must be worth it. */
	ctx->pace.patience = p->vcpus_move ? 0 : KVM_SLOW_MOVE_PATIENCE;
	if (from) {
		kvm_hand_end(from);
		err = -ENOMEM;
		ctx->fpu_buf = malloc(p->xsave_size);
		if (ctx->fpu_buf)
			err = fpu_copy_out(from, ctx->fpu_buf);
		if (err) {
			free(ctx->fpu_buf);
			free(ctx);
			return err;
		}
	}
	*ret_ctx = ctx;
	return 0;
}

/* Forgets where the state was. Platform lock held. */
static void fpu_disown_locked(struct platform_context *ctx)
{
	if (ctx->fpu_vcpu)
		atomic_store_explicit(&ctx->fpu_vcpu->fpu_owner, NULL, memory_order_relaxed);
	ctx->fpu_vcpu = NULL;
	free(ctx->fpu_buf);
	ctx->fpu_buf = NULL;
}

void kvm_context_destroy(struct platform_context *ctx)
{
	struct kvm_platform *p;

	if (!ctx)
		return;
	kvm_hand_end(ctx);
	kvm_mailbox_detach(ctx);
	p = ctx->p;
	mutex_lock(&p->lock);
	fpu_disown_locked(ctx);
	mutex_unlock(&p->lock);
	free(ctx);
}

size_t kvm_fpu_size(struct platform *base)
{
	return kvm_platform_of(base)->fpu_size;
}

int kvm_fpu_get(struct platform_context *ctx, void *buf, size_t size)
{
	size_t n = MIN(size, ctx->p->fpu_size);
	uint8_t *area;
	int err;

	if (kvm_hand_fpu(ctx, buf, n))
		return (int)n;
	area = malloc(ctx->p->xsave_size);
	if (!area)
		return -ENOMEM;
	kvm_hand_end(ctx);
	err = fpu_copy_out(ctx, area);
	if (!err)
		memcpy(buf, area, n);
	free(area);
	return err ? err : (int)n;
}

int kvm_fpu_set(struct platform_context *ctx, const void *buf, size_t size)
{
	struct kvm_platform *p = ctx->p;
	struct kvm_vcpu *v;
	uint64_t bv = XFEATURE_FPSSE;
	uint8_t *area;
	int err;

	if (size < FXSAVE_SIZE)
		return -EINVAL;
	area = calloc(1, p->xsave_size);
	if (!area)
		return -ENOMEM;
	memcpy(area, buf, MIN(size, p->fpu_size));
	/* Without the header it is an FXSAVE area. */
	if (size < XSAVE_HEADER_END || !p->has_xsave) {
		memset(area + XSAVE_BV, 0, XSAVE_HEADER_END - XSAVE_BV);
		memcpy(area + XSAVE_BV, &bv, sizeof(bv));
	}
	kvm_hand_end(ctx);
	/* The vCPU is the judge of what it takes, so the state goes there now. */
	err = kvm_vcpu_get(p, ctx, &v);
	if (err)
		goto out_free;
	err = kvm_fpu_load(v, ctx);
	if (!err && vcpu_set_fpu(v, area))
		err = -EINVAL;
	kvm_vcpu_put(v);
out_free:
	free(area);
	return err;
}

void kvm_fpu_reset(struct platform_context *ctx)
{
	struct kvm_platform *p = ctx->p;

	kvm_hand_end(ctx);
	mutex_lock(&p->lock);
	fpu_disown_locked(ctx);
	mutex_unlock(&p->lock);
}
