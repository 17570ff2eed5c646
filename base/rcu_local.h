/* base/rcu_local.h - what base/rcu.c asks of base/rcu_local.c, of the same names there. */
#ifndef MOAT_BASE_RCU_LOCAL_H
#define MOAT_BASE_RCU_LOCAL_H

#include "base/rcu.h"

void rcu_local_drain(void);
void rcu_local_before_fork(void);
void rcu_local_after_fork_parent(void);
void rcu_local_after_fork_child(void);

#endif
