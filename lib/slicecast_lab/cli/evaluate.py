"""Measure a model on scans whose truth is known, beside simple baselines."""

from pathlib import Path
from typing import Annotated

import typer

from slicecast.cli._checks import Device, check_output
from slicecast.errors import ConfigError
from slicecast_lab.evaluation.cases import find_cases
from slicecast_lab.evaluation.settings import (
    FIXED,
    FORMATS,
    SALIENT_VOXELS,
    SEED_EXACT,
    ProtocolName,
    SeedSettings,
    Settings,
    Unit,
    named_specs,
    parse_prompt,
    parse_values,
    require_sam2,
)

app = typer.Typer(add_completion=False)

Data = Annotated[Path, typer.Option(metavar="DIR", help="Folder with images/ and labels/, or as in MSD or BraTS.")]
Label = Annotated[str, typer.Option(metavar="L[,L2]", help="Label values; several together are one object.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="A list of split.json; empty for all cases.")]
Prompt = Annotated[str, typer.Option(help="mask, box or clicks:N on one slice; line or ends through all.")]
SliceName = Annotated[str, typer.Option("--slice", help="largest, centre or quarter (of the object's extent).")]
Protocol = Annotated[
    ProtocolName, typer.Option(help="fixed, or seed-exact as published (clicks:N or mask on the centre slice).")
]
Preset = Annotated[str, typer.Option(help="seed: the published study's table, of the sets that --data holds.")]
Salient = Annotated[int, typer.Option(min=0, help="seed-exact: voxels above which a slice is in the clip.")]
Model = Annotated[str, typer.Option(help="A name of `slicecast models list`, or several: A,B; empty for the default.")]
Corrections = Annotated[int, typer.Option(help="So many further clicks (after clicks) or painted slices.")]
Baselines = Annotated[
    str, typer.Option(metavar="LIST", help="Any of copy,copy-extent,region,levelset,walker,monailabel.")
]
Surface = Annotated[Unit, typer.Option(help="Of surface distances.")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first N cases; 0 for all.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything measured.")]
Picture = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw best, median and worst case.")]


@app.command("evaluate")
def evaluate_model(
    data: Data,
    label: Label = "",
    split: Split = "",
    prompt: Prompt = "mask",
    slice_rule: SliceName = "",
    protocol: Protocol = FIXED,
    preset: Preset = "",
    salient: Salient = SALIENT_VOXELS,
    model: Model = "",
    device: Device = "auto",
    corrections: Corrections = 0,
    baselines: Baselines = "",
    unit: Surface = "mm",
    limit: Limit = 0,
    json_file: Json = None,
    picture: Picture = None,
) -> None:
    """Measure a model on scans whose truth is known, beside simple baselines.

    \b
    Examples:
      slicecast lab evaluate --data sample --label 1 --prompt mask --baselines copy,copy-extent
      slicecast lab evaluate --data hippocampus --split test --label 1,2 --prompt clicks:5 --json out.json
      slicecast lab evaluate --data sample --label 1 --prompt clicks:5 --model sam2_nano,ct_sam3d_nano
      slicecast lab evaluate --data Task09_Spleen --protocol seed-exact --prompt clicks:5 --model sam2_hiera_large
      slicecast lab evaluate --data folder_of_sets --preset seed --model sam2.1_hiera_tiny,sam2.1_hiera_large
    """
    kind, clicks = parse_prompt(prompt)
    check_output(json_file)
    check_output(picture, FORMATS)
    _check_models(model, preset=preset, protocol=protocol, baselines=baselines, picture=picture)
    if preset or protocol == SEED_EXACT:
        own_slice = slice_rule if slice_rule != "centre" else ""
        refuse_options(slice=own_slice, corrections=corrections, baselines=baselines, picture=picture)
    if preset:
        _check_preset(preset, label=label, split=split)
        from slicecast_lab.cli._measure import measure_study  # PyTorch takes seconds, see main.py

        measure_study(data, models=model, device=device, limit=limit, salient=salient, json_file=json_file)
        return
    cases = find_cases(data, _values(label, protocol), split=split, limit=limit)
    if protocol == SEED_EXACT:
        seed = SeedSettings(prompt=kind, clicks=clicks, salient=salient)  # type: ignore[arg-type]
        from slicecast_lab.cli._measure import measure_set

        measure_set(cases, seed, set_name=data.resolve().name, model=model, device=device, json_file=json_file)
        return
    settings = Settings(
        prompt=kind,
        clicks=clicks,
        slice=slice_rule or "largest",  # type: ignore[arg-type]
        corrections=corrections,
        baselines=tuple(filter(None, baselines.split(","))),  # type: ignore[arg-type]
        unit=unit,
    )
    from slicecast_lab.cli._measure import measure_fixed

    measure_fixed(cases, settings, models=model, device=device, json_file=json_file, picture=picture, title=data)


def _check_models(models: str, *, preset: str, protocol: str, baselines: str, picture: Path | None) -> None:
    """Refuse models that are not there, several where one is wanted, and what only a SAM 2 can do."""
    names = models.split(",")
    for name in names:
        named_specs(name)
        if preset or protocol == SEED_EXACT:
            require_sam2(name, f"the protocol {SEED_EXACT}")
        if "monailabel" in baselines.split(","):
            require_sam2(name, "the baseline monailabel")
    if len(names) > 1 and not preset and (protocol == SEED_EXACT or picture):
        raise ConfigError(f"{models} are several models; --protocol {SEED_EXACT} and --picture take one.")


def _values(label: str, protocol: str) -> tuple[int, ...]:
    """Return the label values that are the object; none for all of them, which only the seed's protocol takes."""
    if protocol == FIXED and not label:
        raise ConfigError("Say which label values are the object, for example --label 1 or --label 1,2.")
    return parse_values(label) if label else ()


def _check_preset(preset: str, *, label: str, split: str) -> None:
    if preset != "seed":
        raise ConfigError(f"There is no preset {preset!r}. Use seed.")
    refuse_options(label=label, split=split)


def refuse_options(**given: object) -> None:
    """Refuse options that the published protocol does not have; raises ConfigError if one of them was given."""
    for name, value in given.items():
        if value:
            raise ConfigError(
                f"--{name} does not go with the protocol {SEED_EXACT}, which has no choice there. Leave it out."
            )
