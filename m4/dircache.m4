# SPDX-License-Identifier: Apache-2.0

# DIRCACHE_TRY_CFLAGS([FLAGS...]): add to DIRCACHE_CFLAGS what this compiler takes, one by one.
AC_DEFUN([DIRCACHE_TRY_CFLAGS], [
	dircache_saved_CFLAGS=$CFLAGS
	for dircache_flag in m4_normalize([$1]); do
		AC_MSG_CHECKING([whether $CC takes $dircache_flag])
		CFLAGS="-Werror $dircache_saved_CFLAGS $dircache_flag"
		AC_COMPILE_IFELSE([AC_LANG_PROGRAM],
			[AC_MSG_RESULT([yes]); DIRCACHE_CFLAGS="$DIRCACHE_CFLAGS $dircache_flag"],
			[AC_MSG_RESULT([no])])
	done
	CFLAGS=$dircache_saved_CFLAGS
])

# DIRCACHE_TRY_LDFLAGS([FLAGS...]): the same for the linker, with the compiler's flags so far.
AC_DEFUN([DIRCACHE_TRY_LDFLAGS], [
	dircache_saved_CFLAGS=$CFLAGS
	dircache_saved_LDFLAGS=$LDFLAGS
	CFLAGS="-Werror $CFLAGS $DIRCACHE_CFLAGS"
	for dircache_flag in m4_normalize([$1]); do
		AC_MSG_CHECKING([whether the linker takes $dircache_flag])
		LDFLAGS="$dircache_saved_LDFLAGS $dircache_flag"
		AC_LINK_IFELSE([AC_LANG_PROGRAM],
			[AC_MSG_RESULT([yes]); DIRCACHE_LDFLAGS="$DIRCACHE_LDFLAGS $dircache_flag"],
			[AC_MSG_RESULT([no])])
	done
	CFLAGS=$dircache_saved_CFLAGS
	LDFLAGS=$dircache_saved_LDFLAGS
])

# DIRCACHE_UNIT_DIR(NAME, DEFAULT, WHAT): --with-NAME=DIR, into NAME. Below our own prefix unless told otherwise,
# so that nothing is installed elsewhere.
AC_DEFUN([DIRCACHE_UNIT_DIR], [
	AC_ARG_WITH([$1], [AS_HELP_STRING([--with-$1=DIR], [$3 @<:@$2@:>@])],
		[AS_CASE([$withval], [yes], [$1='$2'], [no], [$1=], [$1=$withval])], [$1='$2'])
	AC_SUBST([$1])
])

# DIRCACHE_UNIT_DIRS: where the units for systemd go; the automake lists systemdsystemunit_DATA and so on follow.
AC_DEFUN([DIRCACHE_UNIT_DIRS], [
	DIRCACHE_UNIT_DIR([systemdsystemunitdir], [${prefix}/lib/systemd/system], [units of the machine])
	DIRCACHE_UNIT_DIR([systemduserunitdir], [${prefix}/lib/systemd/user], [units of users])
	DIRCACHE_UNIT_DIR([sysusersdir], [${prefix}/lib/sysusers.d], [the user and group of the machine's daemon])
])

# DIRCACHE_OPTIONS: the --enable options, into dircache_* variables and conditionals.
AC_DEFUN([DIRCACHE_OPTIONS], [
	AC_ARG_ENABLE([sanitizers],
		[AS_HELP_STRING([--enable-sanitizers=LIST],
			[build with sanitizers: address,undefined (the default LIST) or thread])],
		[AS_CASE([$enableval], [yes], [dircache_sanitizers=address,undefined], [dircache_sanitizers=$enableval])],
		[dircache_sanitizers=no])
	AC_ARG_ENABLE([coverage],
		[AS_HELP_STRING([--enable-coverage], [build for 'make coverage'])],
		[dircache_coverage=$enableval], [dircache_coverage=no])
	AC_ARG_ENABLE([fuzzing],
		[AS_HELP_STRING([--enable-fuzzing], [build the fuzz targets for 'make fuzz' (needs CC=clang)])],
		[dircache_fuzzing=$enableval], [dircache_fuzzing=no])
	AC_ARG_ENABLE([werror],
		[AS_HELP_STRING([--enable-werror], [warnings of the compiler are errors])],
		[dircache_werror=$enableval], [dircache_werror=no])

	# A fuzz target without sanitizers finds little.
	AS_IF([test "$dircache_fuzzing" = yes && test "$dircache_sanitizers" = no],
	      [dircache_sanitizers=address,undefined])

	AM_CONDITIONAL([SANITIZERS], [test "$dircache_sanitizers" != no])
	AM_CONDITIONAL([COVERAGE], [test "$dircache_coverage" = yes])
	AM_CONDITIONAL([FUZZING], [test "$dircache_fuzzing" = yes])
])

# DIRCACHE_FLAGS: what we ask of the compiler and the linker, in DIRCACHE_CFLAGS and DIRCACHE_LDFLAGS.
AC_DEFUN([DIRCACHE_FLAGS], [
	DIRCACHE_CFLAGS="-std=gnu11 -pthread"
	DIRCACHE_LDFLAGS="-pthread"

	DIRCACHE_TRY_CFLAGS([-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes
		-Wold-style-definition -Wformat=2 -Wvla -Wundef -Wwrite-strings -Wpointer-arith -Wcast-align
		-Wimplicit-fallthrough -Wnull-dereference -Wlogical-op -Wduplicated-cond -Wdate-time
		-Werror=implicit-function-declaration -Werror=incompatible-pointer-types -Werror=int-conversion
		-Werror=return-type -fno-common -fno-strict-aliasing])
	DIRCACHE_TRY_CFLAGS([-fPIE])
	DIRCACHE_TRY_LDFLAGS([-pie -Wl,--as-needed])

	AS_IF([test "$dircache_sanitizers" = no], [
		DIRCACHE_TRY_CFLAGS([-fstack-protector-strong -fstack-clash-protection -fcf-protection])
		DIRCACHE_TRY_LDFLAGS([-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack])
	], [
		AC_DEFINE([DIRCACHE_SANITIZERS], [1], [built with sanitizers, which see more than the fortified functions])
		dircache_flags="-fsanitize=$dircache_sanitizers -fno-sanitize-recover=all -fno-omit-frame-pointer"
		DIRCACHE_CFLAGS="$DIRCACHE_CFLAGS $dircache_flags"
		DIRCACHE_LDFLAGS="$DIRCACHE_LDFLAGS $dircache_flags"
		dircache_saved_CFLAGS=$CFLAGS
		CFLAGS="$CFLAGS $dircache_flags"
		AC_LINK_IFELSE([AC_LANG_PROGRAM], [],
			[AC_MSG_FAILURE([$CC cannot build with -fsanitize=$dircache_sanitizers])])
		CFLAGS=$dircache_saved_CFLAGS
	])

	FUZZ_LDFLAGS=
	AS_IF([test "$dircache_fuzzing" = yes], [
		DIRCACHE_CFLAGS="$DIRCACHE_CFLAGS -fsanitize=fuzzer-no-link"
		DIRCACHE_LDFLAGS="$DIRCACHE_LDFLAGS -fsanitize=fuzzer-no-link"
		FUZZ_LDFLAGS="-fsanitize=fuzzer"
		dircache_saved_CFLAGS=$CFLAGS
		CFLAGS="$CFLAGS -fsanitize=fuzzer"
		AC_LINK_IFELSE([AC_LANG_SOURCE([[
			#include <stddef.h>
			int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
			int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) { return !data && size; }
			]])], [], [AC_MSG_FAILURE([--enable-fuzzing needs libFuzzer: configure with CC=clang])])
		CFLAGS=$dircache_saved_CFLAGS
	])

	AS_IF([test "$dircache_coverage" = yes], [
		DIRCACHE_CFLAGS="$DIRCACHE_CFLAGS --coverage -fprofile-update=atomic"
		DIRCACHE_LDFLAGS="$DIRCACHE_LDFLAGS --coverage"
	])

	AS_IF([test "$dircache_werror" = yes], [DIRCACHE_CFLAGS="$DIRCACHE_CFLAGS -Werror"])

	AC_SUBST([DIRCACHE_CFLAGS])
	AC_SUBST([DIRCACHE_LDFLAGS])
	AC_SUBST([FUZZ_LDFLAGS])

	# In the header rather than on the command line, since it may stand only where the compiler optimizes.
	# Level 3 checks sizes that are known when the program runs; an older libc or compiler takes it for 2, and warns.
	AC_MSG_CHECKING([for the level of fortified functions])
	dircache_saved_CFLAGS=$CFLAGS
	CFLAGS="$CFLAGS -O2 -Werror -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3"
	AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[
		#include <stdio.h>
		#include <string.h>
		]])], [dircache_fortify=3], [dircache_fortify=2])
	CFLAGS=$dircache_saved_CFLAGS
	AC_MSG_RESULT([$dircache_fortify])
	AC_DEFINE_UNQUOTED([DIRCACHE_FORTIFY], [$dircache_fortify], [what _FORTIFY_SOURCE is where the compiler optimizes])
	AH_BOTTOM([#if defined __OPTIMIZE__ && !defined _FORTIFY_SOURCE && !defined DIRCACHE_SANITIZERS
#define _FORTIFY_SOURCE DIRCACHE_FORTIFY
#endif])
])
