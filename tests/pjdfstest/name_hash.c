/* name_hash.c - stands in for `openssl md5`, by which pjdfstest makes names: 32 hexadecimal digits that depend on standard input. */
#include <stdint.h>
#include <stdio.h>

int main(void)
{
	uint64_t a = 0xcbf29ce484222325ull, b = 0x84222325cbf29ce4ull;
	int c;

	while ((c = getchar()) != EOF) {
		a = (a ^ (uint64_t)c) * 0x100000001b3ull;
		b = (b + a) * 0x9e3779b97f4a7c15ull;
	}
	printf("(stdin)= %016llx%016llx\n", (unsigned long long)a, (unsigned long long)b);
	return 0;
}
