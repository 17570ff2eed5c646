# Compiler and linker flags of every target: the dialect, the warnings, and DESIGN.md section 10's
# hardening. assert() stays on in a release: it guards our own invariants, never input.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-Og -g")

find_package(Threads REQUIRED)

# Empty, as a file that defines it itself would.
add_compile_definitions(_GNU_SOURCE=)
add_compile_options(
	-Wall -Wextra -Werror -Wshadow
	$<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes>
	$<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>
	-fno-strict-aliasing -fno-common -pthread)

if(CMAKE_C_COMPILER_ID MATCHES "Clang")
	# Designated initialisers that stop early mean "the rest is zero" here, in both compilers.
	add_compile_options(-Wno-missing-field-initializers)
else()
	add_compile_options($<$<COMPILE_LANGUAGE:C>:-Wno-missing-field-initializers>)
endif()

add_compile_options(-fPIE -fstack-protector-strong -fcf-protection)
add_link_options(-pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,defs -pthread)

if(MOAT_DEBUG)
	add_compile_definitions(MOAT_DEBUG)
endif()

if(MOAT_SANITIZE STREQUAL "address")
	set(moat_sanitize -fsanitize=address,undefined -fno-sanitize-recover=all)
elseif(MOAT_SANITIZE STREQUAL "thread")
	set(moat_sanitize -fsanitize=thread)
elseif(NOT MOAT_SANITIZE STREQUAL "")
	message(FATAL_ERROR "MOAT_SANITIZE is address, thread or empty, not '${MOAT_SANITIZE}'")
endif()

if(MOAT_FUZZ)
	if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
		message(FATAL_ERROR "MOAT_FUZZ needs clang: use the fuzz preset")
	endif()
	list(APPEND moat_sanitize -fsanitize=fuzzer-no-link,address,undefined
		-fno-sanitize-recover=all)
endif()

if(moat_sanitize)
	add_compile_options(${moat_sanitize} -fno-omit-frame-pointer)
	add_link_options(${moat_sanitize})
elseif(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
	# Needs the optimiser; the sanitizers' interceptors check the same calls themselves.
	add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
endif()
