namespace Pml
{
    /// <summary>The type of a parameter's elements; the numbers below 1000 are ggml's.</summary>
    public enum Dtype : uint
    {
        /// <summary>IEEE 754, 32 bits.</summary>
        F32 = 0,

        /// <summary>IEEE 754, 16 bits.</summary>
        F16 = 1,

        /// <summary>32 elements in 18 bytes.</summary>
        Q4_0 = 2,

        /// <summary>32 elements in 20 bytes.</summary>
        Q4_1 = 3,

        /// <summary>32 elements in 22 bytes.</summary>
        Q5_0 = 6,

        /// <summary>32 elements in 24 bytes.</summary>
        Q5_1 = 7,

        /// <summary>32 elements in 34 bytes.</summary>
        Q8_0 = 8,

        /// <summary>32 elements in 36 bytes.</summary>
        Q8_1 = 9,

        /// <summary>256 elements in 84 bytes.</summary>
        Q2_K = 10,

        /// <summary>256 elements in 110 bytes.</summary>
        Q3_K = 11,

        /// <summary>256 elements in 144 bytes.</summary>
        Q4_K = 12,

        /// <summary>256 elements in 176 bytes.</summary>
        Q5_K = 13,

        /// <summary>256 elements in 210 bytes.</summary>
        Q6_K = 14,

        /// <summary>256 elements in 292 bytes.</summary>
        Q8_K = 15,

        /// <summary>256 elements in 66 bytes.</summary>
        IQ2_XXS = 16,

        /// <summary>256 elements in 74 bytes.</summary>
        IQ2_XS = 17,

        /// <summary>256 elements in 98 bytes.</summary>
        IQ3_XXS = 18,

        /// <summary>256 elements in 50 bytes.</summary>
        IQ1_S = 19,

        /// <summary>32 elements in 18 bytes.</summary>
        IQ4_NL = 20,

        /// <summary>256 elements in 110 bytes.</summary>
        IQ3_S = 21,

        /// <summary>256 elements in 82 bytes.</summary>
        IQ2_S = 22,

        /// <summary>256 elements in 136 bytes.</summary>
        IQ4_XS = 23,

        /// <summary>Signed, 8 bits.</summary>
        I8 = 24,

        /// <summary>Signed, 16 bits.</summary>
        I16 = 25,

        /// <summary>Signed, 32 bits.</summary>
        I32 = 26,

        /// <summary>Signed, 64 bits.</summary>
        I64 = 27,

        /// <summary>IEEE 754, 64 bits.</summary>
        F64 = 28,

        /// <summary>256 elements in 56 bytes.</summary>
        IQ1_M = 29,

        /// <summary>The upper half of an F32.</summary>
        BF16 = 30,

        /// <summary>256 elements in 54 bytes.</summary>
        TQ1_0 = 34,

        /// <summary>256 elements in 66 bytes.</summary>
        TQ2_0 = 35,

        /// <summary>32 elements in 17 bytes.</summary>
        MXFP4 = 39,

        /// <summary>64 elements in 36 bytes.</summary>
        NVFP4 = 40,

        /// <summary>128 elements in 18 bytes.</summary>
        Q1_0 = 41,

        /// <summary>64 elements in 18 bytes.</summary>
        Q2_0 = 42,

        /// <summary>One byte: 0 or 1.</summary>
        Bool = 1000,

        /// <summary>1 element in 1 byte, unsigned.</summary>
        U8 = 1001,

        /// <summary>1 element in 2 bytes, unsigned.</summary>
        U16 = 1002,

        /// <summary>1 element in 4 bytes, unsigned.</summary>
        U32 = 1003,

        /// <summary>1 element in 8 bytes, unsigned.</summary>
        U64 = 1004,

        /// <summary>1 element in 1 byte: four exponent and three mantissa bits, no infinities.</summary>
        F8_E4M3 = 1005,

        /// <summary>1 element in 1 byte: five exponent and two mantissa bits.</summary>
        F8_E5M2 = 1006,

        /// <summary>1 element in 1 byte: an exponent alone.</summary>
        F8_E8M0 = 1007,

        /// <summary>1 element in 8 bytes: two F32, real and imaginary.</summary>
        C64 = 1008,

        /// <summary>2 elements in 1 byte.</summary>
        F4 = 1009,

        /// <summary>4 elements in 3 bytes.</summary>
        F6_E2M3 = 1010,

        /// <summary>4 elements in 3 bytes.</summary>
        F6_E3M2 = 1011,

        /// <summary>64 elements in 32 bytes, their scale beside them in a tensor of its own.</summary>
        NF4 = 1012,

        /// <summary>
        /// 1 element in 1 byte: four exponent and three mantissa bits, no infinities and no negative zero.
        /// </summary>
        F8_E4M3FNUZ = 1013,

        /// <summary>
        /// 1 element in 1 byte: five exponent and two mantissa bits, no infinities and no negative zero.
        /// </summary>
        F8_E5M2FNUZ = 1014,

        /// <summary>As it is stored: a choice for what is delivered, not a type of elements.</summary>
        Keep = 2000,

        /// <summary>As it is stored, but F16 in place of BF16 where the device does not compute with BF16.</summary>
        Auto = 2001,

        /// <summary>I8, its scales beside it as "name.scales": F32, one for each row.</summary>
        Int8 = 2002,

        /// <summary>I8, its scales beside it as "name.scales": F16, one for each 32 elements of a row.</summary>
        Int8_32 = 2003,
    }
}
