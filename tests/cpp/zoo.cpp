// Models by name: zoo MODEL FOLDER
#include <filesystem>
#include <fstream>
#include <string>

#include "check.hpp"

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    const std::string path = argv[1];
    const std::string folder = argv[2];
    const pml::zoo_options where =
        pml::zoo_options{}.path(folder + "/zoo").huggingface_path("").ollama_path("").lm_studio_path("").limit(1U << 30);
    pml::zoo zoo = pml::zoo::open(where).value();
    CHECK(zoo.list().value().empty());
    CHECK(pml::zoo::open(pml::zoo_options{}.path(std::string_view("\0", 1))).error().status == pml::status::invalid_argument);
    CHECK(zoo.find("mine").error().status == pml::status::not_found);
    CHECK(zoo.find(std::string_view("a\0b", 3)).error().status == pml::status::invalid_argument);
    CHECK(zoo.find("mine", std::string_view("\0", 1)).error().status == pml::status::invalid_argument);

    const pml::model file = pml::model::open_path(path).value();
    const pml::model_info known = file.info().value();
    CHECK(known.architecture == "llama" && known.store == "path" && known.format == pml::format::gguf && !known.is_pinned);
    CHECK(known.dtype == pml::dtype::f16 && known.tensor_count > 20 && known.parameters > known.tensor_count);
    CHECK(!pml::model::open_path(folder + "/no.such"));

    const pml::model added = zoo.add(path, "mine", "v1", pml::zoo_keep::copy | pml::zoo_keep::pin).value();
    CHECK(added.summary().name == "mine" && added.summary().version == "v1" && added.summary().store == "pml");
    CHECK(added.summary().is_pinned && added.summary().bytes == std::filesystem::file_size(path));
    CHECK(added.files().size() == 1 && added.files()[0].bytes == added.summary().bytes);
    const std::string kept(added.files()[0].path);
    CHECK(kept != path && added.files()[0].digest.substr(0, 7) == "sha256:" && added.files()[0].digest.size() == 71);
    CHECK(zoo.add(path).value().summary().version == "latest");

    std::size_t listed = 0;
    for (const pml::model &model : zoo.list().value()) listed += model.summary().store == "pml" ? 1U : 0U;
    CHECK(listed == 2 && zoo.list().value().size() == 2 && !zoo.list().value()[1].summary().name.empty());

    const pml::model found = zoo.find("mine", "v1").value();
    CHECK(zoo.find("mine:v1").value().summary().path == found.summary().path);
    zoo.verify("mine", "v1").value();
    {
        const pml::loader loader = pml::loader::open(found, pml::options{}.device("cpu")).value();
        CHECK(loader.tensor("output_norm.weight").value().acquire().value().as<float>().value().size() == 256);
    }
    {
        std::fstream rot(kept, std::ios::binary | std::ios::in | std::ios::out);
        rot.seekp(-1, std::ios::end);
        rot.put('\x7f');
    }
    CHECK(zoo.verify("mine").error().status == pml::status::malformed);
    std::filesystem::resize_file(kept, 100);
    CHECK(pml::loader::open(found).error().status == pml::status::truncated);
    const pml::model_list whole = zoo.list().value();
    CHECK(whole.size() == 1 && whole.remarks().size() == 1 && whole.remarks()[0].find("mine") != std::string_view::npos);

    zoo.pin("mine", "v1", false).value();
    zoo.remove("mine", "v1").value();
    CHECK(zoo.remove("mine", "v1").error().status == pml::status::not_found && !std::filesystem::exists(kept));
    return 0;
}
