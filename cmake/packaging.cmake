# What `cmake --install` puts where (the binary is in runtime/CMakeLists.txt), and the Debian package that
# CPack makes of it: `cpack -G DEB` in the build directory, or the target `package`.
include(GNUInstallDirs)

# Where zsh looks differs: this is for /usr/local; the package moves it, see cpack_debian.cmake.
set(MOAT_ZSH_COMPLETION_DIR ${CMAKE_INSTALL_DATAROOTDIR}/zsh/site-functions CACHE STRING
	"Where zsh's completion is installed")
set(MOAT_MAINTAINER "Moat maintainers <maintainers@moat.invalid>" CACHE STRING
	"Who answers for the packages made here: the Maintainer field")

install(FILES docs/man/moat.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES completion/bash/moat
	DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/bash-completion/completions)
install(FILES completion/fish/moat.fish
	DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/fish/vendor_completions.d)
install(FILES completion/zsh/_moat DESTINATION ${MOAT_ZSH_COMPLETION_DIR})
# README.md's links into docs/ hold there too.
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs FILES_MATCHING PATTERN "*.md"
	PATTERN man EXCLUDE)

# The package's history and terms, as Debian's policy has them.
# The changelog's date is SOURCE_DATE_EPOCH, which string(TIMESTAMP) obeys; where that is not set, the last commit's; without git, now.
if(NOT DEFINED ENV{SOURCE_DATE_EPOCH})
	execute_process(COMMAND git log -1 --format=%ct WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
		OUTPUT_VARIABLE commit_time OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
	if(commit_time)
		set(ENV{SOURCE_DATE_EPOCH} ${commit_time})
	endif()
endif()
string(TIMESTAMP MOAT_PACKAGED "%a, %d %b %Y %H:%M:%S +0000" UTC)
if(commit_time)
	unset(ENV{SOURCE_DATE_EPOCH})
endif()
configure_file(cmake/changelog.in ${CMAKE_CURRENT_BINARY_DIR}/packaging/changelog @ONLY)
configure_file(cmake/copyright.in ${CMAKE_CURRENT_BINARY_DIR}/packaging/copyright @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/packaging/changelog ${CMAKE_CURRENT_BINARY_DIR}/packaging/copyright
	DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_GENERATOR DEB)
set(CPACK_SOURCE_GENERATOR TXZ)
set(CPACK_SOURCE_IGNORE_FILES "/\\\\.git/;/build[^/]*/;__pycache__")
set(CPACK_PACKAGE_NAME moat)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "OCI runtime with a Linux kernel of its own for each sandbox")
set(CPACK_PACKAGE_DESCRIPTION
	"Moat runs containers in sandboxes whose kernel is an ordinary host process
that implements Linux's system calls itself, so that their programs do not
talk to the host's kernel. It has the command line of runc: docker, podman
and containerd use it as a runtime (moat install registers it). x86-64 only;
KVM is used where it is there.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_SOURCE_DIR}/cmake/cpack_debian.cmake)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER ${MOAT_MAINTAINER})
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "libsystemd0, podman | docker.io | containerd")
# The package changes no configuration of an engine: that is the administrator's `moat install`.
include(CPack)
