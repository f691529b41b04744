# A program for each target that there is: c_pml, c_shared, c_static, cpp_cxx.
foreach(target IN ITEMS pml shared static)
    if(TARGET pml::${target})
        add_executable(c_${target} "${CMAKE_CURRENT_LIST_DIR}/first_values.c")
        target_link_libraries(c_${target} PRIVATE pml::${target})
    endif()
endforeach()
# C++17 is what pml::cxx asks for, whatever the project does.
set(CMAKE_CXX_STANDARD 14)
add_executable(cpp_cxx "${CMAKE_CURRENT_LIST_DIR}/../../examples/first_values.cpp")
target_link_libraries(cpp_cxx PRIVATE pml::cxx)
