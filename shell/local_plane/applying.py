"""The services' file into the rows: entries made, changed and gone. What follows from it is `placement`'s to say."""

from dataclasses import replace

from shell.local_plane.entries import Entry, ServicesFile
from shell.local_plane.world import Moment, Service, ServiceId, World, service_named, with_service


def with_file(world: World, file: ServicesFile, moment: Moment) -> World:
    """The world in which this file is in force."""
    world = replace(world, project=file.project or "lab", registry=file.registry)
    for entry in file.entries:
        world = _with_entry(world, entry, moment)
    kept = {entry.key for entry in file.entries}
    for service in list(world.services.values()):
        if service.key not in kept and not service.removed:
            world = with_service(world, replace(service, removed=True))
    return world


def _with_entry(world: World, entry: Entry, moment: Moment) -> World:
    known = service_named(world, entry.key)
    if known is not None and entry.id in (None, known.id):
        built = known.built_image if entry.spec.image == known.spec.image else None
        return with_service(world, replace(known, spec=entry.spec, built_image=built))
    if known is not None:  # another id makes it another service
        world = with_service(world, replace(known, removed=True))
    fresh = Service(ServiceId(entry.id or moment.new_id()), entry.key, entry.spec)
    return with_service(world, fresh)
