/* platform/common/event.h - the events that every platform makes of a fault. */
#ifndef MOAT_PLATFORM_COMMON_EVENT_H
#define MOAT_PLATFORM_COMMON_EVENT_H

#include "platform/platform.h"

#define VECTOR_PF 14
/* A page fault's error code (Intel SDM volume 3, 4.7). */
#define PF_PRESENT 1u
#define PF_WRITE 2u
#define PF_USER 4u
#define PF_FETCH 16u

static inline void event_exception(struct platform_event *ev, uint32_t vector, uint32_t error_code)
{
	*ev = (struct platform_event){
		.kind = PLATFORM_EXCEPTION,
		.vector = vector,
		.error_code = error_code,
	};
}

static inline void event_fault(struct platform_event *ev, uint64_t addr, uint32_t error_code)
{
	*ev = (struct platform_event){
		.kind = PLATFORM_FAULT,
		.addr = addr,
		.access = error_code & PF_FETCH	  ? MEM_EXEC
			  : error_code & PF_WRITE ? MEM_WRITE
						  : MEM_READ,
		.present = error_code & PF_PRESENT,
		.vector = VECTOR_PF,
		.error_code = error_code,
	};
}

#endif
