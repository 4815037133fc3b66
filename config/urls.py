"""Every route on one screen."""

from django.conf import settings
from django.urls import include, path

from api import Api
from products.api import router as products

api = Api(
    title=settings.NAME,
    version=settings.VERSION,
    description="Products, over ten million of them, in under ten milliseconds.",
)
api.add_router("", products)

urlpatterns = [
    path("api/", api.urls),
]

if settings.PROFILE == "silk":
    urlpatterns.append(path("silk/", include("silk.urls")))
if settings.TOOLBAR:
    urlpatterns.append(path("__debug__/", include("debug_toolbar.urls")))

handler400 = "api.problems.bad_request"
handler403 = "api.problems.forbidden"
handler404 = "api.problems.not_found"
handler500 = "api.problems.internal_error"
