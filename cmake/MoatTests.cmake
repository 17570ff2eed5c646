# Tests and fuzzers name their libraries in their first line:
#
#	// LINK: moat_vfs moat_memfs
#
# A file that names a library which this build does not have is left out, with a message.

# moat_read_link(<source> <list-out> <missing-out>)
function(moat_read_link source out missing_out)
	set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
	file(STRINGS ${source} first LIMIT_COUNT 1)
	set(libs "")
	set(missing "")
	if(first MATCHES "^// LINK:(.*)$")
		string(STRIP "${CMAKE_MATCH_1}" names)
		separate_arguments(names UNIX_COMMAND "${names}")
		foreach(name IN LISTS names)
			if(name MATCHES "^moat_" AND NOT TARGET ${name})
				list(APPEND missing ${name})
			endif()
			list(APPEND libs ${name})
		endforeach()
	endif()
	set(${out} "${libs}" PARENT_SCOPE)
	set(${missing_out} "${missing}" PARENT_SCOPE)
endfunction()

# moat_link(<target> <libs...>): the libraries, as often as their static cycles need.
function(moat_link target)
	target_link_libraries(${target} PRIVATE
		-Wl,--start-group ${ARGN} moat_base -Wl,--end-group Threads::Threads)
endfunction()

# moat_unit_test(<source>): one cmocka executable, known to ctest by its file's name.
function(moat_unit_test source)
	get_filename_component(name ${source} NAME_WE)
	moat_read_link(${source} libs missing)
	if(missing)
		message(STATUS "${name}: left out, no ${missing}")
		return()
	endif()
	add_executable(${name} ${source})
	# A test may call what must fail and look at nothing but what it left behind.
	target_compile_options(${name} PRIVATE -Wno-missing-prototypes -Wno-unused-result
		$<$<C_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
	moat_link(${name} ${libs})
	target_link_libraries(${name} PRIVATE cmocka)
	add_test(NAME ${name} COMMAND ${name})
	set_tests_properties(${name} PROPERTIES TIMEOUT 300 LABELS unit
		SKIP_RETURN_CODE 77)
endfunction()

# moat_fuzzer(<source>): a libFuzzer target in a fuzz build; elsewhere it replays the files it is
# given, and ctest replays the corpus in tests/fuzz/corpus/<name>/.
function(moat_fuzzer source)
	get_filename_component(name ${source} NAME_WE)
	moat_read_link(${source} libs missing)
	if(missing)
		message(STATUS "${name}: left out, no ${missing}")
		return()
	endif()
	if(MOAT_FUZZ)
		add_executable(${name} ${source})
		target_link_options(${name} PRIVATE -fsanitize=fuzzer)
	else()
		add_executable(${name} ${source} ${CMAKE_SOURCE_DIR}/tests/fuzz/replay.c)
		add_test(NAME ${name}_replay
			COMMAND ${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
		set_tests_properties(${name}_replay PROPERTIES TIMEOUT 300 LABELS unit)
	endif()
	target_compile_options(${name} PRIVATE -Wno-missing-prototypes -Wno-unused-result
		$<$<C_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
	moat_link(${name} ${libs})
endfunction()
