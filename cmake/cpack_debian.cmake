# Run by CPack on the tree that becomes the package: what Debian wants otherwise than `cmake --install` does it.
if(NOT CPACK_GENERATOR STREQUAL "DEB")
	return()
endif()
set(tree ${CPACK_TEMPORARY_DIRECTORY}${CPACK_PACKAGING_INSTALL_PREFIX})

# Manual pages are compressed, without a time in the file.
file(GLOB_RECURSE pages ${tree}/share/man/*.[1-9])
if(NOT pages)
	message(FATAL_ERROR "no manual page below ${tree}")
endif()
execute_process(COMMAND gzip -9n ${pages} COMMAND_ERROR_IS_FATAL ANY)

execute_process(COMMAND gzip -9n ${tree}/share/doc/moat/changelog COMMAND_ERROR_IS_FATAL ANY)

# Packages' functions for zsh have a directory of their own.
if(EXISTS ${tree}/share/zsh/site-functions)
	file(RENAME ${tree}/share/zsh/site-functions ${tree}/share/zsh/vendor-completions)
endif()

# Directories that installing made have the builder's umask.
file(CHMOD_RECURSE ${CPACK_TEMPORARY_DIRECTORY} DIRECTORY_PERMISSIONS
	OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
