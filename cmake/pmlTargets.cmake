# The targets of libpml, alike for an installed one and for one that is built with the project:
#
#     pml::shared  the shared library
#     pml::static  the static library, with what it needs of the system
#     pml::pml     the one of them that is the default
#     pml::cxx     pml::pml and C++17, for pml.hpp
#
# pml_define_targets([GLOBAL] DEFAULT shared|static INCLUDE folder SHARED file SONAME name STATIC file SYSTEM libraries...)
function(pml_define_targets)
    cmake_parse_arguments(PARSE_ARGV 0 pml "GLOBAL" "DEFAULT;INCLUDE;SHARED;SONAME;STATIC" "SYSTEM")
    set(global "")
    if(pml_GLOBAL)
        set(global GLOBAL)
    endif()

    if(pml_SHARED)
        add_library(pml::shared SHARED IMPORTED ${global})
        set_target_properties(pml::shared PROPERTIES
            IMPORTED_LOCATION "${pml_SHARED}"
            IMPORTED_SONAME "${pml_SONAME}"
            INTERFACE_INCLUDE_DIRECTORIES "${pml_INCLUDE}")
    endif()
    if(pml_STATIC)
        add_library(pml::static STATIC IMPORTED ${global})
        set_target_properties(pml::static PROPERTIES
            IMPORTED_LOCATION "${pml_STATIC}"
            INTERFACE_COMPILE_DEFINITIONS PML_STATIC
            INTERFACE_INCLUDE_DIRECTORIES "${pml_INCLUDE}"
            INTERFACE_LINK_LIBRARIES "${pml_SYSTEM}")
    endif()
    add_library(pml::pml INTERFACE IMPORTED ${global})
    set_target_properties(pml::pml PROPERTIES INTERFACE_LINK_LIBRARIES pml::${pml_DEFAULT})
    add_library(pml::cxx INTERFACE IMPORTED ${global})
    set_target_properties(pml::cxx PROPERTIES
        INTERFACE_LINK_LIBRARIES pml::pml
        INTERFACE_COMPILE_FEATURES cxx_std_17)
endfunction()
