# Kernel sources are compiled once for each instruction set, and the linker keeps one copy of a function that several
# objects have: no object may have such a function outside the namespace of its instruction set (see op_spec.hpp).
#   cmake -DNM=... -DNAME=avx2 "-DOBJECTS=a.o,b.o" -P check_symbols.cmake
string(REPLACE "," ";" objects "${OBJECTS}")
list(LENGTH objects n_objects)
if(n_objects EQUAL 0)
  message(FATAL_ERROR "no objects of ${NAME} to look at")
endif()
foreach(object IN LISTS objects)
  execute_process(COMMAND ${NM} --defined-only ${object} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE "\n" ";" lines "${symbols}")
  foreach(line IN LISTS lines)
    # Weak and unique: W, V, u. A name of namespace dllama::avx2 is mangled as ...6dllama4avx2...
    if(line MATCHES " [WVuwv] " AND NOT line MATCHES "6dllama[0-9]+${NAME}")
      message(SEND_ERROR "${object} has a copy of a function that others may be given: ${line}")
    endif()
  endforeach()
endforeach()
