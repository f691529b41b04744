namespace Pml
{
    /// <summary>How bytes are read.</summary>
    public enum ReadMode
    {
        /// <summary>
        /// Local files are mapped, files behind a network are read; copies of pages that are not in the page
        /// cache go past it.
        /// </summary>
        Auto = 0,

        /// <summary>
        /// The file is mapped and parameters are viewed in place; if somebody cuts the file while a view is used,
        /// the access faults.
        /// </summary>
        Mmap = 1,

        /// <summary>Positioned reads into memory of the library's own.</summary>
        Read = 2,

        /// <summary>Positioned reads past the page cache (O_DIRECT) into memory of the library's own.</summary>
        Direct = 3,
    }
}
